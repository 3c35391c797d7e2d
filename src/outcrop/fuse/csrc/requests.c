/* One request in, one answer out.
 *
 * Every request is handled first by the thread that reads the device, which must not wait
 * (`may_wait` false): what is in memory is answered at once. What needs Python or a disk comes back
 * as NEEDS_THREAD, is copied to the heap, and is handled again from the start by a thread that may
 * wait. What somebody else already waits for is PARKED and handled again when that has come.
 */
#include "engine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

/* ---- answers -------------------------------------------------------------------------------- */

/* Write one answer; parts[0] is for the header. Returns 0, or why the kernel did not take it. */
int device_answer(struct engine *e, uint64_t unique, int error, struct iovec *parts, int count)
{
    struct fuse_out_header header = {sizeof header, -error, unique};
    parts[0].iov_base = &header;
    parts[0].iov_len = sizeof header;
    for (int i = 1; i < count; i++)
        header.len += (uint32_t)parts[i].iov_len;
    ssize_t written;
    do
        written = writev(e->device, parts, count);
    while (written < 0 && errno == EINTR);
    if (written >= 0)
        return 0;
    int why = errno;
    /* ENOENT: the request is gone (aborted). Anything else was our mistake or a lack of memory;
     * an answer the kernel refused leaves its caller waiting for ever, an error does not. */
    if (count > 1 && why != ENOENT && why != ENODEV) {
        struct iovec only[1];
        device_answer(e, unique, EIO, only, 1);
    }
    return why;
}

/* Whether this thread is the one to answer; an interrupt may have been faster. */
static bool claim(struct engine *e, struct request *r)
{
    if (!r->slow)
        return true;
    pthread_mutex_lock(&e->slow.lock);
    bool mine = !r->answered;
    r->answered = true;
    pthread_mutex_unlock(&e->slow.lock);
    if (!mine)
        COUNT(e, discarded);
    return mine;
}

/* Returns whether the kernel has the answer, so that lookup counts can be taken back if not. */
static bool answer_parts(struct worker *w, struct request *r, int error, struct iovec *parts,
                         int count)
{
    struct engine *e = w->engine;
    return claim(e, r) && device_answer(e, r->unique, error, parts, count) == 0;
}

static bool answer(struct worker *w, struct request *r, const void *data, size_t length)
{
    struct iovec parts[2] = {{0}, {(void *)data, length}};
    return answer_parts(w, r, 0, parts, length ? 2 : 1);
}

void request_answer_error(struct worker *w, struct request *r, int error)
{
    struct iovec parts[1];
    answer_parts(w, r, error, parts, 1);
}

static enum outcome fail(struct worker *w, struct request *r, int error)
{
    request_answer_error(w, r, error);
    return ANSWERED;
}

static enum outcome fail_unlocked(struct worker *w, struct request *r, int error)
{
    tree_unlock(&w->engine->tree);
    return fail(w, r, error);
}

/* ---- slow requests and interrupts ----------------------------------------------------------- */

struct request *request_make_slow(struct engine *e, const struct request *r)
{
    struct request *copy = malloc(sizeof *copy + r->length);
    if (!copy)
        return NULL;
    *copy = *r;
    memcpy(copy->storage, r->body, r->length);
    copy->body = copy->storage;
    copy->slow = true;
    copy->queued = NULL;
    struct slow *s = &e->slow;
    pthread_mutex_lock(&s->lock);
    copy->older = s->ends.older;
    copy->newer = &s->ends;
    copy->older->newer = copy;
    s->ends.older = copy;
    pthread_mutex_unlock(&s->lock);
    return copy;
}

void request_free_slow(struct engine *e, struct request *r)
{
    pthread_mutex_lock(&e->slow.lock);
    r->newer->older = r->older;
    r->older->newer = r->newer;
    if (r->interrupted)
        e->slow.interrupted--;
    pthread_mutex_unlock(&e->slow.lock);
    free(r);
}

static uint64_t read_mask(const char *status, const char *field)
{
    const char *at = strstr(status, field);
    return at ? strtoull(at + strlen(field), NULL, 16) : 0;
}

/* Whether a signal that ends the thread is waiting for it. The kernel interrupts a request for any
 * signal, also for one with a handler; answering EINTR then would make `stat` or `read` of a file
 * fail in every program with a timer or a SIGCHLD handler, which no disk file system does. So only
 * a signal the thread will not survive ends its request. When in doubt, it is one. */
static bool is_dying(uint32_t pid)
{
    char path[40], status[16384];
    if (pid == 0)
        return true;            /* of a PID namespace we cannot see */
    snprintf(path, sizeof path, "/proc/%u/status", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return true;
    ssize_t length = read(fd, status, sizeof status - 1);
    close(fd);
    if (length <= 0)
        return true;
    status[length] = '\0';
#define BIT(signal) (UINT64_C(1) << ((signal) - 1))
    const uint64_t harmless = BIT(SIGCHLD) | BIT(SIGCONT) | BIT(SIGURG) | BIT(SIGWINCH) |
                              BIT(SIGSTOP) | BIT(SIGTSTP) | BIT(SIGTTIN) | BIT(SIGTTOU);
    uint64_t survived = read_mask(status, "\nSigBlk:") | read_mask(status, "\nSigIgn:") |
                        read_mask(status, "\nSigCgt:") | harmless;
    uint64_t pending = read_mask(status, "\nSigPnd:") | read_mask(status, "\nShdPnd:");
    return (pending & ~survived) || (read_mask(status, "\nSigPnd:") & BIT(SIGKILL));
#undef BIT
}

static struct request *find_waiting(struct slow *s, uint64_t unique)
{
    for (struct request *r = s->ends.older; r != &s->ends; r = r->older)
        if (r->unique == unique)
            return r->answered ? NULL : r;
    return NULL;
}

/* A request that is not found was answered already: the thread that reads the device makes a
 * request known as slow before anybody reads the next one. So EAGAIN, the protocol's answer to an
 * interrupt that overtook its request, is never needed. */
static void interrupt(struct engine *e, uint64_t unique)
{
    struct slow *s = &e->slow;
    pthread_mutex_lock(&s->lock);
    struct request *r = find_waiting(s, unique);
    uint32_t pid = r ? r->pid : 0;
    pthread_mutex_unlock(&s->lock);
    if (!r)
        return;
    bool dying = is_dying(pid);
    pthread_mutex_lock(&s->lock);
    r = find_waiting(s, unique);
    if (r && dying) {
        r->answered = true;
    } else if (r && !r->interrupted) {
        /* The kernel tells of the first signal only: keep an eye on this one from now on. */
        r->interrupted = true;
        s->interrupted++;
    }
    pthread_mutex_unlock(&s->lock);
    if (r && dying) {
        struct iovec parts[1];
        device_answer(e, unique, EINTR, parts, 1);
        COUNT(e, interrupts);
    } else if (r) {
        engine_wake(e);
    }
}

void requests_check_interrupted(struct engine *e)
{
    enum { BATCH = 256 };
    uint64_t uniques[BATCH];
    size_t count = 0;
    pthread_mutex_lock(&e->slow.lock);
    for (struct request *r = e->slow.ends.older; r != &e->slow.ends && count < BATCH; r = r->older)
        if (r->interrupted && !r->answered)
            uniques[count++] = r->unique;
    pthread_mutex_unlock(&e->slow.lock);
    for (size_t i = 0; i < count; i++)
        interrupt(e, uniques[i]);
}

/* Whether a request is waiting for whose sake the kernel holds the directory's lock. */
bool requests_wait_in(struct engine *e, uint64_t directory_id)
{
    bool found = false;
    pthread_mutex_lock(&e->slow.lock);
    for (struct request *r = e->slow.ends.older; r != &e->slow.ends && !found; r = r->older)
        found = r->nodeid == directory_id && !r->answered &&
                (r->opcode == FUSE_LOOKUP || r->opcode == FUSE_READDIR ||
                 r->opcode == FUSE_READDIRPLUS);
    pthread_mutex_unlock(&e->slow.lock);
    return found;
}

/* Go on with requests that waited for what another one has now brought, or failed to bring. */
void requests_resume(struct worker *w, struct request *waiters, int error)
{
    while (waiters) {
        struct request *r = waiters;
        waiters = r->queued;
        r->queued = NULL;
        enum outcome done = ANSWERED;
        if (error)
            request_answer_error(w, r, error);
        else if (!r->answered)  /* a guess without the lock; claim() decides */
            done = request_handle(w, r, false);
        if (done == ANSWERED)
            request_free_slow(w->engine, r);
        else if (done == NEEDS_THREAD)
            workers_submit(w->engine, r);
    }
}

/* ---- attributes ----------------------------------------------------------------------------- */

static void fill_attributes(struct fuse_attr *attr, const struct node *n)
{
    memset(attr, 0, sizeof *attr);
    attr->ino = n->ino;
    attr->size = n->size;
    attr->blocks = (n->size + 511) / 512;
    attr->atime = attr->mtime = attr->ctime = (uint64_t)n->mtime;
    attr->atimensec = attr->mtimensec = attr->ctimensec = n->mtime_ns;
    attr->mode = n->mode;
    attr->nlink = n->nlink;
    attr->uid = n->uid;
    attr->gid = n->gid;
    attr->rdev = n->rdev;
    attr->blksize = 4096;
}

/* `is_old`: of the tree before; good for this once. */
static void fill_entry(struct engine *e, struct fuse_entry_out *out, const struct node *n,
                       bool is_old)
{
    memset(out, 0, offsetof(struct fuse_entry_out, attr));
    out->nodeid = n->id;
    if (!is_old) {
        out->entry_valid = out->attr_valid = e->timeout_seconds;
        out->entry_valid_nsec = out->attr_valid_nsec = e->timeout_nanoseconds;
    }
    fill_attributes(&out->attr, n);
}

/* ---- directory tables, brought up to date --------------------------------------------------- */

static bool is_current(struct tree *t, const struct node *n, bool complete)
{
    const struct directory *d = n->directory;
    return d && d->generation == t->generation && (d->complete || !complete) &&
           (n != t->root || t->root_generation == t->generation);
}

/* Ask the view for one directory. Lets go of the lock meanwhile; `n` is held by the caller. */
static int load(struct worker *w, struct node *n)
{
    struct tree *t = &w->engine->tree;
    struct directory *d = n->directory;
    struct listing rows = {0};
    struct node *root_row = NULL;
    uint64_t generation = t->generation;
    size_t length;
    char *path = tree_path(n, &length);
    if (!path)
        return ENAMETOOLONG;
    d->loading = true;
    tree_unlock(t);
    int error = n == t->root ? hook_root(w, &root_row) : 0;
    if (!error)
        error = hook_list(w, path, length, &rows);
    free(path);
    tree_lock(t);
    d->loading = false;
    if (!error && root_row) {
        tree_set_root(t, root_row, generation);
        root_row = NULL;
    }
    /* Meanwhile its parent may have been listed anew, without it. */
    if (!error && n->attached)
        tree_install(t, d, &rows, generation);
    struct request *waiters = d->waiters;
    d->waiters = NULL;
    tree_unlock(t);
    free(root_row);
    listing_free(&rows);
    requests_resume(w, waiters, error);
    tree_lock(t);
    return error;
}

/* Make a directory's table one of the present tree: list it again if the tree has changed since,
 * but before that all its ancestors, since that decides whether it still exists. With the lock
 * held and the node held; ANSWERED means "go on": *error says with what. */
static enum outcome bring_up_to_date(struct worker *w, struct request *r, struct node *n,
                                     bool complete, bool may_wait, int *error)
{
    struct tree *t = &w->engine->tree;
    for (;;) {
        *error = n->attached ? 0 : ENOENT;
        if (*error)
            return ANSWERED;
        if (is_current(t, n, complete)) {
            tree_touch(t, n->directory);
            return ANSWERED;
        }
        if (!may_wait)
            return NEEDS_THREAD;
        struct node *topmost = n;
        for (struct node *p = n->parent; p; p = p->parent)
            if (!is_current(t, p, false))
                topmost = p;
        struct directory *d = tree_directory(topmost);
        if (!d) {
            *error = ENOMEM;
            return ANSWERED;
        }
        if (d->loading) {
            r->queued = d->waiters;
            d->waiters = r;
            return PARKED;
        }
        tree_hold(topmost);
        *error = load(w, topmost);
        tree_release(t, topmost);
        if (*error)
            return ANSWERED;
    }
}

/* While notify.c tells the kernel of a directory's names, which takes the lock that a client who
 * waits for an answer here holds, nobody may wait: the table is used as it is, were it of the tree
 * before. It is a matter of microseconds, but a server killed in them would leave both waiting. */
static bool must_not_wait(const struct node *n)
{
    return n->attached && n->directory && n->directory->telling && n->directory->generation;
}

/* Find the node of a request, its attributes those of the present tree. If that went well (ANSWERED
 * and no error) it is held and the lock is kept; else the lock is gone. */
static enum outcome find_fresh(struct worker *w, struct request *r, bool may_wait,
                               struct node **found, int *error)
{
    struct tree *t = &w->engine->tree;
    tree_lock(t);
    struct node *n = tree_find(t, r->nodeid);
    *error = n ? 0 : ESTALE;
    enum outcome done = ANSWERED;
    if (n) {
        tree_hold(n);
        /* What is gone from the tree keeps the attributes it had. */
        if (n->attached && n->parent)
            done = bring_up_to_date(w, r, n->parent, false, may_wait, error);
        else if (n->attached && t->root_generation != t->generation)
            done = bring_up_to_date(w, r, n, false, may_wait, error);
        if (!n->attached)
            *error = 0;
        if (done == ANSWERED && !*error) {
            *found = n;
            return ANSWERED;
        }
        tree_release(t, n);
    }
    tree_unlock(t);
    return done;
}

/* ---- names and attributes ------------------------------------------------------------------- */

/* A string in a request: NUL-terminated, and the NUL its last byte. */
static bool is_string(const char *data, size_t length)
{
    return length > 0 && memchr(data, '\0', length) == data + length - 1;
}

/* Seconds to believe that a name is not there: as long as an entry if that can be taken back. */
static void fill_negative(struct engine *e, struct fuse_entry_out *out)
{
    enum { UNTRACKED_SECONDS = 60 };
    memset(out, 0, sizeof *out);
    out->entry_valid = e->timeout_seconds;
    out->entry_valid_nsec = e->timeout_nanoseconds;
    if (e->tree.negatives_overflowed && e->minor < MINOR_INC_EPOCH &&
        e->timeout_seconds >= UNTRACKED_SECONDS)
        out->entry_valid = UNTRACKED_SECONDS;
}

static enum outcome do_lookup(struct worker *w, struct request *r, bool may_wait)
{
    struct engine *e = w->engine;
    struct tree *t = &e->tree;
    const char *name = r->body;
    size_t length = r->length - 1;
    if (!is_string(r->body, r->length) || length == 0)
        return fail(w, r, EINVAL);
    if (length > NAME_LIMIT)
        return fail(w, r, ENAMETOOLONG);
    tree_lock(t);
    struct node *n = tree_find(t, r->nodeid);
    if (!n)
        return fail_unlocked(w, r, ESTALE);
    if (!S_ISDIR(n->mode))
        return fail_unlocked(w, r, ENOTDIR);
    tree_hold(n);
    int error = 0;
    struct node *child = NULL;
    enum outcome done = ANSWERED;
    bool as_it_is = must_not_wait(n);
    if (!as_it_is)
        done = bring_up_to_date(w, r, n, false, may_wait, &error);
    if (done == ANSWERED && !error)
        child = directory_find(t, n->directory, name, length);
    if (done == ANSWERED && !error && !child && !n->directory->complete) {
        if (as_it_is)
            error = ESTALE;     /* the kernel tries once more */
        else
            done = bring_up_to_date(w, r, n, true, may_wait, &error);
        if (done == ANSWERED && !error)
            child = directory_find(t, n->directory, name, length);
    }
    struct fuse_entry_out out;
    uint64_t id = 0;
    bool is_old = as_it_is && n->directory->generation != t->generation;
    if (child) {
        if (child->nlookup)
            tree_note_revalidation(t, child);
        tree_reference(t, child);
        id = child->id;
        fill_entry(e, &out, child, is_old);
    } else if (done == ANSWERED && !error && is_old) {
        error = ENOENT;         /* as an error: not to be remembered */
    } else if (done == ANSWERED && !error) {
        tree_remember_negative(t, r->nodeid, name, length);
        fill_negative(e, &out);
        COUNT(e, negatives_sent);
    }
    tree_release(t, n);
    tree_unlock(t);
    if (done != ANSWERED)
        return done;
    if (error)
        return fail(w, r, error);
    if (!answer(w, r, &out, sizeof out) && id) {
        tree_lock(t);
        tree_forget(t, id, 1);
        tree_unlock(t);
    }
    return ANSWERED;
}

static enum outcome do_getattr(struct worker *w, struct request *r, bool may_wait)
{
    struct engine *e = w->engine;
    struct node *n;
    int error;
    enum outcome done = find_fresh(w, r, may_wait, &n, &error);
    if (done != ANSWERED)
        return done;
    if (error)
        return fail(w, r, error);
    struct fuse_attr_out out = {
        .attr_valid = e->timeout_seconds, .attr_valid_nsec = e->timeout_nanoseconds};
    fill_attributes(&out.attr, n);
    tree_release(&e->tree, n);
    tree_unlock(&e->tree);
    answer(w, r, &out, sizeof out);
    return ANSWERED;
}

static enum outcome do_readlink(struct worker *w, struct request *r)
{
    struct tree *t = &w->engine->tree;
    char target[TARGET_LIMIT];
    tree_lock(t);
    struct node *n = tree_find(t, r->nodeid);
    if (!n)
        return fail_unlocked(w, r, ESTALE);
    if (!S_ISLNK(n->mode))
        return fail_unlocked(w, r, EINVAL);
    size_t length = n->target_length;
    memcpy(target, node_tail(n), length);
    tree_unlock(t);
    answer(w, r, target, length);
    return ANSWERED;
}

static void do_forget(struct engine *e, const struct fuse_forget_one *one, size_t count)
{
    tree_lock(&e->tree);
    for (size_t i = 0; i < count; i++)
        tree_forget(&e->tree, one[i].nodeid, one[i].nlookup);
    tree_unlock(&e->tree);
}

/* ---- listings ------------------------------------------------------------------------------- */

static char *worker_out(struct worker *w)
{
    if (!w->out) {
        void *out = mmap(NULL, REPLY_LIMIT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                         -1, 0);
        w->out = out == MAP_FAILED ? NULL : out;
    }
    return w->out;
}

struct listing_writer {
    char *out;
    size_t used, limit;
    bool plus;
};

/* Returns where the fuse_entry_out goes, or NULL if there is no room for this name. */
static char *put_name(struct listing_writer *to, const char *name, size_t length, uint64_t ino,
                      uint32_t mode, uint64_t cookie)
{
    size_t prefix = to->plus ? sizeof(struct fuse_entry_out) : 0;
    size_t size = FUSE_DIRENT_ALIGN(prefix + FUSE_NAME_OFFSET + length);
    if (to->used + size > to->limit)
        return NULL;
    char *at = to->out + to->used;
    struct fuse_dirent *dirent = (struct fuse_dirent *)(at + prefix);
    dirent->ino = ino;
    dirent->off = cookie;
    dirent->namelen = (uint32_t)length;
    dirent->type = (mode & S_IFMT) >> 12;
    memcpy(dirent->name, name, length);
    memset(dirent->name + length, 0, size - prefix - FUSE_NAME_OFFSET - length);
    to->used += size;
    return at;
}

enum { COOKIE_DOT = 1, COOKIE_DOT_DOT = 2 };

/* The kernel takes "." and ".." from us but looks neither up: node id 0. */
static bool put_dots(struct listing_writer *to, struct node *n, uint64_t offset)
{
    const struct node *parent = n->parent ? n->parent : n;
    char *at;
    if (offset < COOKIE_DOT) {
        if (!(at = put_name(to, ".", 1, n->ino, S_IFDIR, COOKIE_DOT)))
            return false;
        if (to->plus)
            memset(at, 0, sizeof(struct fuse_entry_out));
    }
    if (offset < COOKIE_DOT_DOT) {
        if (!(at = put_name(to, "..", 2, parent->ino, S_IFDIR, COOKIE_DOT_DOT)))
            return false;
        if (to->plus)
            memset(at, 0, sizeof(struct fuse_entry_out));
    }
    return true;
}

static void put_entries(struct engine *e, struct listing_writer *to, struct directory *d,
                        uint64_t offset)
{
    bool is_old = d->generation != e->tree.generation;
    for (uint32_t i = directory_after(d, offset); i < d->count; i++) {
        struct node *child = d->entries[i].node;
        if (!child || child->bits & ROW_HIDDEN)
            continue;
        char *at = put_name(to, node_name(child), child->name_length, child->ino, child->mode,
                            d->entries[i].key);
        if (!at)
            return;
        if (to->plus) {
            tree_reference(&e->tree, child);
            fill_entry(e, (struct fuse_entry_out *)at, child, is_old);
        }
    }
}

/* The kernel did not take a READDIRPLUS answer: neither did it look up what is in it. */
static void forget_entries(struct engine *e, const struct listing_writer *to)
{
    tree_lock(&e->tree);
    for (size_t at = 0; at < to->used;) {
        const struct fuse_direntplus *one = (const struct fuse_direntplus *)(to->out + at);
        if (one->entry_out.nodeid)
            tree_forget(&e->tree, one->entry_out.nodeid, 1);
        at += FUSE_DIRENTPLUS_SIZE(one);
    }
    tree_unlock(&e->tree);
}

static enum outcome do_readdir(struct worker *w, struct request *r, bool may_wait, bool plus)
{
    struct engine *e = w->engine;
    struct tree *t = &e->tree;
    const struct fuse_read_in *in = (const struct fuse_read_in *)r->body;
    struct listing_writer to = {.out = worker_out(w), .plus = plus};
    if (r->length < sizeof *in)
        return fail(w, r, EINVAL);
    if (!to.out)
        return fail(w, r, ENOMEM);
    to.limit = in->size < REPLY_LIMIT ? in->size : REPLY_LIMIT;
    uint64_t offset = in->offset;
    tree_lock(t);
    struct node *n = tree_find(t, r->nodeid);
    if (!n)
        return fail_unlocked(w, r, ESTALE);
    if (!S_ISDIR(n->mode))
        return fail_unlocked(w, r, ENOTDIR);
    tree_hold(n);
    int error = 0;
    enum outcome done = ANSWERED;
    if (!must_not_wait(n))
        done = bring_up_to_date(w, r, n, true, may_wait, &error);
    else if (!n->directory->complete)
        error = ESTALE;
    else
        n->directory->told_old = n->directory->generation != t->generation;
    if (done == ANSWERED && !error && put_dots(&to, n, offset))
        put_entries(e, &to, n->directory, offset);
    tree_release(t, n);
    tree_unlock(t);
    if (done != ANSWERED)
        return done;
    if (error)
        return fail(w, r, error);
    if (!answer(w, r, to.out, to.used) && plus)
        forget_entries(e, &to);
    return ANSWERED;
}

/* ---- reading -------------------------------------------------------------------------------- */

/* The path of a content-addressed object below the object directory. */
static void object_path(const struct node *n, char path[64])
{
    static const char *const suffix[] = {"", "", "-rmd160", "-shake128"};
    const unsigned char *digest = (const unsigned char *)node_tail(n);
    char *at = path;
    for (int i = 0; i < DIGEST_SIZE; i++) {
        static const char hex[] = "0123456789abcdef";
        *at++ = hex[digest[i] >> 4];
        *at++ = hex[digest[i] & 15];
        if (i == 0)
            *at++ = '/';
    }
    strcpy(at, suffix[n->kind & KIND_MASK]);
}

/* Open without waiting for a disk or a network file system (`may_wait` false: EAGAIN if it would).
 * Kernels before 5.12, and sandboxes, cannot promise that: there we open as always. */
static int open_object(struct engine *e, const char *path, bool may_wait)
{
    enum { FLAGS = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK };
    static atomic_bool no_cached_open;
    if (!may_wait && !no_cached_open) {
        struct open_how how = {.flags = FLAGS, .resolve = RESOLVE_CACHED};
        int fd = (int)syscall(SYS_openat2, e->object_directory, path, &how, sizeof how);
        if (fd >= 0)
            return fd;
        no_cached_open = errno == ENOSYS || errno == EINVAL || errno == EPERM;
        if (!no_cached_open)
            return -1;
    }
    return openat(e->object_directory, path, FLAGS);
}

/* The cache evicts by modification time: what is read now was used now. Not on every read, since
 * this writes to the disk. It may not be ours to touch, which does not matter. */
static void refresh_stamp(int fd, const struct stat *st)
{
    enum { FRESH_SECONDS = 600 };
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    if (st->st_mtim.tv_sec < now.tv_sec - FRESH_SECONDS)
        (void)!futimens(fd, NULL);
}

/* Look for the whole file as an object in the object directory. Without the lock. Returns 0, EAGAIN
 * (would wait), or ENOENT (ask the view). */
static int find_object(struct engine *e, const char *path, uint64_t size, bool may_wait,
                       struct extent *found)
{
    int fd = open_object(e, path, may_wait);
    if (fd < 0 && (errno == EMFILE || errno == ENFILE)) {
        tree_lock(&e->tree);
        extents_evict(&e->tree, e->tree.extents / 2);
        tree_unlock(&e->tree);
        fd = open_object(e, path, may_wait);
    }
    if (fd < 0)
        return errno == EAGAIN ? EAGAIN : ENOENT;
    struct stat st;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size != size) {
        close(fd);
        return ENOENT;
    }
    refresh_stamp(fd, &st);
    COUNT(e, objects_opened);
    *found = (struct extent){.fd = fd, .length = size, .wait = WAIT_UNKNOWN};
    return 0;
}

static bool is_in_memory(int fd)
{
    struct statfs fs;
    return fstatfs(fd, &fs) == 0 && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
}

/* Read from an extent in use, without the lock. Returns bytes read; less than asked for only at the
 * end of the file or on an error; -1: would wait. */
static ssize_t read_extent(struct extent *x, char *to, size_t length, uint64_t at, bool may_wait)
{
    if (!may_wait && x->wait != WAIT_NEVER) {
        struct iovec part = {to, length};
        ssize_t got = x->wait == WAIT_MAYBE ? -1 : preadv2(x->fd, &part, 1, (off_t)at, RWF_NOWAIT);
        if (got == (ssize_t)length)
            return got;
        if (got >= 0 || errno != EOPNOTSUPP || x->wait == WAIT_MAYBE)
            return -1;
        x->wait = is_in_memory(x->fd) ? WAIT_NEVER : WAIT_MAYBE;
        if (x->wait == WAIT_MAYBE)
            return -1;
    }
    size_t done = 0;
    while (done < length) {
        ssize_t got = pread(x->fd, to + done, length - done, (off_t)(at + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

/* Ask the view where the bytes are. With the lock held; lets go of it meanwhile. */
static int ask_for_extent(struct worker *w, struct node *n, uint64_t offset,
                          struct request **waiters)
{
    struct tree *t = &w->engine->tree;
    struct file *f = node_file(n);
    size_t length;
    char *path = tree_path(n, &length);
    if (!path || !f) {
        free(path);
        node_file_trim(n);
        return ENOMEM;
    }
    struct fault fault = {.offset = offset, .next = f->faults};
    f->faults = &fault;
    struct extent_answer found;
    tree_unlock(t);
    /* Kind, content and size of a node never change, and it is held. */
    int error = hook_open_extent(w, path, length, n->kind, node_tail(n), n->content_length, n->size,
                                 offset, &found);
    free(path);
    tree_lock(t);
    struct fault **slot = &n->file->faults;
    while (*slot != &fault)
        slot = &(*slot)->next;
    *slot = fault.next;
    *waiters = fault.waiters;
    if (error) {
        node_file_trim(n);
        return error;
    }
    struct extent x = {.fd = found.fd, .offset = found.offset, .length = found.length,
                       .position = found.position};
    error = extent_add(t, n, &x);
    if (error)
        close(found.fd);
    return error;
}

/* Whether somebody is already asking for these bytes. One object is one question; of other content
 * we do not know the pieces, but know that chunks are not smaller than this. */
static struct fault *find_fault(struct node *n, uint64_t offset)
{
    enum { WINDOW = 4 << 20 };
    for (struct fault *f = n->file ? n->file->faults : NULL; f; f = f->next)
        if (n->kind != OPAQUE || (offset >= f->offset && offset - f->offset < WINDOW))
            return f;
    return NULL;
}

/* Have an extent that covers the offset, opening it if need be. With the lock held; may let go of
 * it. ANSWERED: *x, or *error. */
static enum outcome cover(struct worker *w, struct request *r, struct node *n, uint64_t offset,
                          bool may_wait, struct extent **x, int *error, struct request **waiters)
{
    struct engine *e = w->engine;
    struct tree *t = &e->tree;
    *error = 0;
    if ((*x = extent_find(n, offset)))
        return ANSWERED;
    struct fault *fault = find_fault(n, offset);
    if (fault) {
        if (!may_wait)
            return NEEDS_THREAD;
        r->queued = fault->waiters;
        fault->waiters = r;
        return PARKED;
    }
    if (n->kind != OPAQUE && e->object_directory >= 0 && !r->retried) {
        char path[64];
        struct extent found;
        uint64_t size = n->size;
        object_path(n, path);
        tree_unlock(t);
        int why = find_object(e, path, size, may_wait, &found);
        tree_lock(t);
        if (why == 0) {
            if ((*error = extent_add(t, n, &found)))
                close(found.fd);
            *x = extent_find(n, offset);
            return ANSWERED;
        }
    }
    if (!may_wait)
        return NEEDS_THREAD;
    /* While the lock was gone another thread may have begun to ask. */
    if ((*x = extent_find(n, offset)) || find_fault(n, offset))
        return cover(w, r, n, offset, may_wait, x, error, waiters);
    *error = ask_for_extent(w, n, offset, waiters);
    *x = extent_find(n, offset);
    return ANSWERED;
}

/* The buffer of this thread is not free for others' answers once there is something in it. */
static void resume_readers(struct worker *w, struct request *waiters, int error, bool busy)
{
    if (error || !busy) {
        requests_resume(w, waiters, error);
        return;
    }
    while (waiters) {
        struct request *next = waiters->queued;
        waiters->queued = NULL;
        workers_submit(w->engine, waiters);
        waiters = next;
    }
}

/* Fill the buffer from as many extents as it takes. With the lock held and the node held. */
static enum outcome read_pieces(struct worker *w, struct request *r, struct node *n,
                                uint64_t offset, size_t want, bool may_wait, int *error)
{
    struct tree *t = &w->engine->tree;
    size_t done = 0;
    *error = 0;
    while (done < want) {
        struct extent *x;
        struct request *waiters = NULL;
        uint64_t at = offset + done;
        enum outcome result = cover(w, r, n, at, may_wait, &x, error, &waiters);
        if (result != ANSWERED)
            return result;
        size_t length = 0;
        ssize_t got = 0;
        if (x) {
            uint64_t left = x->length - (at - x->offset);
            length = left < want - done ? (size_t)left : want - done;
            extent_use(t, x);
        }
        tree_unlock(t);
        resume_readers(w, waiters, *error, done > 0);
        if (x)
            got = read_extent(x, w->out + done, length, x->position + (at - x->offset), may_wait);
        tree_lock(t);
        if (!x) {
            *error = *error ? *error : EIO;
            return ANSWERED;
        }
        bool is_short = got >= 0 && (size_t)got < length;
        if (is_short)
            extent_drop(t, x);  /* cut off under us: what the view opens next may be whole */
        extent_done(t, x);
        if (got < 0)
            return NEEDS_THREAD;
        if (is_short && r->retried) {
            *error = EIO;
            return ANSWERED;
        }
        if (is_short)
            r->retried = true;
        else
            done += length;
    }
    return ANSWERED;
}

static enum outcome do_read(struct worker *w, struct request *r, bool may_wait)
{
    struct engine *e = w->engine;
    struct tree *t = &e->tree;
    const struct fuse_read_in *in = (const struct fuse_read_in *)r->body;
    /* A short answer means end of file to the kernel, so too large a request is an error. */
    if (r->length < sizeof *in || in->size > REPLY_LIMIT)
        return fail(w, r, EINVAL);
    if (!worker_out(w))
        return fail(w, r, ENOMEM);
    uint64_t offset = in->offset;
    tree_lock(t);
    struct node *n = tree_find(t, r->nodeid);
    if (!n)
        return fail_unlocked(w, r, ESTALE);
    if (!S_ISREG(n->mode))
        return fail_unlocked(w, r, S_ISDIR(n->mode) ? EISDIR : EINVAL);
    size_t want = 0;
    if (offset < n->size)
        want = n->size - offset < in->size ? (size_t)(n->size - offset) : in->size;
    tree_hold(n);
    int error;
    enum outcome done = read_pieces(w, r, n, offset, want, may_wait, &error);
    size_t path_length = 0;
    char *path = NULL;
    if (done == ANSWERED && !error && n->size <= SMALL_FILE && offset + want >= n->size)
        extents_drop_all(t, n); /* the kernel has all of it now */
    if (done == ANSWERED && error == EIO && r->retried)
        path = tree_path(n, &path_length);
    tree_release(t, n);
    tree_unlock(t);
    if (path)
        hook_log(w, path, path_length, "is shorter in the cache than its catalog says");
    free(path);
    if (done != ANSWERED)
        return done;
    if (error)
        return fail(w, r, error);
    atomic_fetch_add_explicit(&e->read_bytes, want, memory_order_relaxed);
    answer(w, r, w->out, want);
    return ANSWERED;
}

/* ---- extended attributes, statfs ------------------------------------------------------------ */

static bool is_never_kept(const char *name)
{
    return strncmp(name, "security.", 9) == 0 || strncmp(name, "system.", 7) == 0;
}

static void answer_xattr(struct worker *w, struct request *r, uint32_t room, const char *value,
                         size_t length)
{
    struct fuse_getxattr_out size = {.size = (uint32_t)length};
    if (length > XATTR_LIMIT)
        request_answer_error(w, r, E2BIG);
    else if (room == 0)
        answer(w, r, &size, sizeof size);
    else if (length > room)
        request_answer_error(w, r, ERANGE);
    else
        answer(w, r, value, length);
}

/* GETXATTR (with a name) and LISTXATTR. A failed `ls -l` costs nothing here: EOPNOTSUPP for
 * security.* makes GNU ls stop asking, where ENODATA makes it ask for every file again. */
static enum outcome do_xattr(struct worker *w, struct request *r, bool may_wait, bool list)
{
    struct tree *t = &w->engine->tree;
    const struct fuse_getxattr_in *in = (const struct fuse_getxattr_in *)r->body;
    const char *name = r->body + sizeof *in;
    if (r->length < sizeof *in || (!list && !is_string(name, r->length - sizeof *in)))
        return fail(w, r, EINVAL);
    if (!may_wait && (list || !is_never_kept(name)))
        return NEEDS_THREAD;
    struct node *n;
    int error;
    enum outcome done = find_fresh(w, r, may_wait, &n, &error);
    if (done != ANSWERED)
        return done;
    if (error)
        return fail(w, r, error);
    size_t path_length = 0, length = 0;
    char *path = NULL, *value = NULL;
    if (!list && is_never_kept(name) && !(n->bits & ROW_HAS_XATTRS))
        error = EOPNOTSUPP;
    else if (!may_wait)
        done = NEEDS_THREAD;
    else if (!n->attached)
        error = ESTALE;         /* its path may be another file's by now */
    else if (!(path = tree_path(n, &path_length)))
        error = ENAMETOOLONG;
    tree_release(t, n);
    tree_unlock(t);
    if (done != ANSWERED)
        return done;
    if (!error && list)
        error = hook_list_xattrs(w, path, path_length, &value, &length);
    else if (!error)
        error = hook_get_xattr(w, path, path_length, name, &value, &length);
    if (error)
        request_answer_error(w, r, error);
    else
        answer_xattr(w, r, in->size, value, length);
    free(path);
    free(value);
    return ANSWERED;
}

static enum outcome do_statfs(struct worker *w, struct request *r, bool may_wait)
{
    if (!may_wait)
        return NEEDS_THREAD;
    struct fuse_statfs_out out = {0};
    int error = hook_statfs(w, &out.st);
    if (error)
        return fail(w, r, error);
    answer(w, r, &out, sizeof out);
    return ANSWERED;
}

/* ---- INIT, OPEN ----------------------------------------------------------------------------- */

static enum outcome do_init(struct worker *w, struct request *r)
{
    struct engine *e = w->engine;
    uint32_t in[5] = {0};       /* major, minor, max_readahead, flags, flags2 */
    if (r->length < 16)
        return fail(w, r, EINVAL);
    memcpy(in, r->body, r->length < sizeof in ? r->length : sizeof in);
    struct fuse_init_out out = {.major = FUSE_KERNEL_VERSION, .minor = MINOR_KNOWN};
    if (in[0] > FUSE_KERNEL_VERSION) {
        answer(w, r, &out, sizeof out); /* it asks again in our version */
        return ANSWERED;
    }
    if (in[0] < FUSE_KERNEL_VERSION || in[1] < MINOR_NEEDED) {
        hook_log(w, "", 0, "this kernel's FUSE protocol is older than 7.23");
        return fail(w, r, EPROTO);
    }
    const uint32_t wanted = FUSE_ASYNC_READ | FUSE_PARALLEL_DIROPS | FUSE_DO_READDIRPLUS |
                            FUSE_CACHE_SYMLINKS | FUSE_MAX_PAGES |
                            /* content never changes behind a node: a new mtime is no reason
                             * to drop its pages */
                            FUSE_EXPLICIT_INVAL_DATA;
    uint64_t offered = in[3];
    if (offered & FUSE_INIT_EXT)
        offered |= (uint64_t)in[4] << 32;
    e->minor = in[1] < MINOR_KNOWN ? in[1] : MINOR_KNOWN;
    e->can_expire = offered & FUSE_HAS_EXPIRE_ONLY;
    e->no_open = e->use_no_open && offered & FUSE_NO_OPEN_SUPPORT;
    e->no_opendir = offered & FUSE_NO_OPENDIR_SUPPORT;
    out.minor = e->minor;
    out.max_readahead = in[2];
    out.flags = (uint32_t)offered & wanted;
    out.max_background = 64;
    out.congestion_threshold = 48;
    out.max_write = 4096;       /* there are none; it sizes the read buffer the kernel asks for */
    out.time_gran = 1;
    out.max_pages = REPLY_LIMIT / 4096;
    answer(w, r, &out, sizeof out);
    return ANSWERED;
}

/* ENOSYS once, and the kernel opens by itself from then on: as FOPEN_KEEP_CACHE, and directories
 * as FOPEN_CACHE_DIR too. ROW_DIRECT_IO can be honoured only where OPEN is asked. */
static enum outcome do_open(struct worker *w, struct request *r)
{
    struct engine *e = w->engine;
    const struct fuse_open_in *in = (const struct fuse_open_in *)r->body;
    struct fuse_open_out out = {.open_flags = FOPEN_KEEP_CACHE};
    if (r->length < sizeof *in)
        return fail(w, r, EINVAL);
    if (e->no_open)
        return fail(w, r, ENOSYS);
    if ((in->flags & O_ACCMODE) != O_RDONLY)
        return fail(w, r, EROFS);
    tree_lock(&e->tree);
    struct node *n = tree_find(&e->tree, r->nodeid);
    if (!n)
        return fail_unlocked(w, r, ESTALE);
    if (n->bits & ROW_DIRECT_IO)
        out.open_flags = FOPEN_DIRECT_IO;
    tree_unlock(&e->tree);
    answer(w, r, &out, sizeof out);
    return ANSWERED;
}

static enum outcome do_opendir(struct worker *w, struct request *r)
{
    struct fuse_open_out out = {.open_flags = FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR};
    if (w->engine->no_opendir)
        return fail(w, r, ENOSYS);
    answer(w, r, &out, sizeof out);
    return ANSWERED;
}

/* ---- dispatch ------------------------------------------------------------------------------- */

/* A packet is one request. False: not even a header. */
bool request_parse(const char *packet, size_t length, struct request *r)
{
    struct fuse_in_header header;
    if (length < sizeof header)
        return false;
    memcpy(&header, packet, sizeof header);
    if (header.len != length)
        return false;
    *r = (struct request){
        .unique = header.unique, .nodeid = header.nodeid, .opcode = header.opcode,
        .pid = header.pid, .body = packet + sizeof header,
        .length = (uint32_t)(length - sizeof header),
    };
    return true;
}

static void do_batch_forget(struct engine *e, const struct request *r)
{
    const struct fuse_batch_forget_in *in = (const struct fuse_batch_forget_in *)r->body;
    if (r->length < sizeof *in)
        return;
    size_t fits = (r->length - sizeof *in) / sizeof(struct fuse_forget_one);
    do_forget(e, (const struct fuse_forget_one *)(in + 1), in->count < fits ? in->count : fits);
}

enum outcome request_handle(struct worker *w, struct request *r, bool may_wait)
{
    struct engine *e = w->engine;
    switch (r->opcode) {
    case FUSE_LOOKUP: return do_lookup(w, r, may_wait);
    case FUSE_GETATTR: return do_getattr(w, r, may_wait);
    case FUSE_READLINK: return do_readlink(w, r);
    case FUSE_READ: return do_read(w, r, may_wait);
    case FUSE_READDIR: return do_readdir(w, r, may_wait, false);
    case FUSE_READDIRPLUS: return do_readdir(w, r, may_wait, true);
    case FUSE_GETXATTR: return do_xattr(w, r, may_wait, false);
    case FUSE_LISTXATTR: return do_xattr(w, r, may_wait, true);
    case FUSE_STATFS: return do_statfs(w, r, may_wait);
    case FUSE_INIT: return do_init(w, r);
    case FUSE_OPEN: return do_open(w, r);
    case FUSE_OPENDIR: return do_opendir(w, r);
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR:
    case FUSE_DESTROY: return fail(w, r, 0);
    /* No answer to these three. */
    case FUSE_FORGET:
        if (r->length >= sizeof(struct fuse_forget_in)) {
            struct fuse_forget_one one = {.nodeid = r->nodeid};
            memcpy(&one.nlookup, r->body, sizeof one.nlookup);
            do_forget(e, &one, 1);
        }
        return ANSWERED;
    case FUSE_BATCH_FORGET: do_batch_forget(e, r); return ANSWERED;
    case FUSE_INTERRUPT:
        if (r->length >= sizeof(uint64_t)) {
            uint64_t unique;
            memcpy(&unique, r->body, sizeof unique);
            interrupt(e, unique);
        }
        return ANSWERED;
    case FUSE_SETATTR: case FUSE_SYMLINK: case FUSE_MKNOD: case FUSE_MKDIR: case FUSE_UNLINK:
    case FUSE_RMDIR: case FUSE_RENAME: case FUSE_LINK: case FUSE_WRITE: case FUSE_SETXATTR:
    case FUSE_REMOVEXATTR: case FUSE_CREATE: case FUSE_FALLOCATE: case FUSE_RENAME2:
    case FUSE_TMPFILE:
        return fail(w, r, EROFS);
    case FUSE_IOCTL: return fail(w, r, ENOTTY);
    /* FLUSH, FSYNC, ACCESS, LSEEK, POLL, locks, and whatever comes: the kernel's default is right,
     * and ENOSYS makes it remember that. */
    default: return fail(w, r, ENOSYS);
    }
}
