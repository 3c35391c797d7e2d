/* What the kernel is told when the tree has changed.
 *
 * The kernel caches names (present and not), attributes, listings (pages of the directory's inode,
 * believed while its mtime is the same), symlink targets and file pages. The last two hang on nodes
 * whose target or content never changes, and stay. So do names: they are only *expired*, which
 * makes the kernel look each up again at its next use; the same node means the same inode, with its
 * pages, open files and working directories. FUSE_NOTIFY_INC_EPOCH would be one message for all
 * names, but throws dentries away, and with the last dentry go the inode and its pages; it is the
 * fallback for more missing names than we remember.
 *
 * Sent by the thread that called tree_changed(), never by one that serves: the kernel takes the
 * lock of the name's directory, which a client holds while it waits for our answer to its lookup or
 * listing there. That lock makes the order safe: a lookup answered from the old tree has put its
 * dentry in place before the expiry of that name gets the lock. But a thread of ours that waits for
 * it cannot be killed, and while it lives the device stays open and the client waits on. So names
 * are told directory by directory, each when no request waits in it, and while that lasts requests
 * for the directory are answered without asking the view (`telling`).
 *
 * The lock is not held when the kernel looks up a name it knows, to see whether it is still true:
 * such an answer from the old tree may be written, and the expiry come, before the client has put
 * the answer to use, and would make the name good again. So names that were looked up again just
 * before the change are expired twice more, a moment later.
 */
#include "engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static void notify(struct engine *e, int code, const void *data, size_t length, const char *name,
                   size_t name_length)
{
    struct fuse_out_header header = {.error = code};
    struct iovec parts[4] = {
        {&header, sizeof header},
        {(void *)data, length},
        {(void *)name, name_length},
        {(char[1]){0}, 1},      /* names end with a NUL that is not counted */
    };
    int count = name ? 4 : data ? 2 : 1;
    for (int i = 0; i < count; i++)
        header.len += (uint32_t)parts[i].iov_len;
    /* ENOENT: it was not cached. Nothing else can be mended here. */
    ssize_t ignored = writev(e->device, parts, count);
    (void)ignored;
    COUNT(e, notifications);
}

/* struct fuse_notify_inval_entry_out; older headers call `flags` padding */
struct name_notice {
    uint64_t parent;
    uint32_t length;
    uint32_t flags;
};

static void expire_name(struct engine *e, uint64_t parent, const char *name, size_t length)
{
    struct name_notice out = {parent, (uint32_t)length, e->can_expire ? FUSE_EXPIRE_ONLY : 0};
    notify(e, FUSE_NOTIFY_INVAL_ENTRY, &out, sizeof out, name, length);
}

/* A present name is dropped where it cannot be expired; so is one that was not there. */
static void drop_name(struct engine *e, uint64_t parent, const char *name, size_t length)
{
    struct name_notice out = {parent, (uint32_t)length, 0};
    notify(e, FUSE_NOTIFY_INVAL_ENTRY, &out, sizeof out, name, length);
}

/* The directory's own attributes and its cached listing. Takes no lock a client could hold. */
static void forget_listing(struct engine *e, uint64_t id)
{
    struct fuse_notify_inval_inode_out out = {.ino = id};
    notify(e, FUSE_NOTIFY_INVAL_INODE, &out, sizeof out, NULL, 0);
}

/* ---- what there is to tell, by directory ---------------------------------------------------- */

struct item {
    uint64_t directory;         /* 0: told */
    uint64_t child;             /* 0: a missing name, or the directory itself */
    struct negative *missing;
};

static int by_directory(const void *left, const void *right)
{
    const struct item *a = left, *b = right;
    return (a->directory > b->directory) - (a->directory < b->directory);
}

/* Under tree.lock. Every known name under its directory, and every directory under itself. */
static size_t add_known(struct tree *t, const uint64_t *ids, size_t count, struct item *items)
{
    size_t added = 0;
    for (size_t i = 0; i < count; i++) {
        const struct node *n = tree_find(t, ids[i]);
        if (n && n->parent && n->parent->id)
            items[added++] = (struct item){.directory = n->parent->id, .child = n->id};
        if (n && S_ISDIR(n->mode) && n->directory)
            items[added++] = (struct item){.directory = n->id};
    }
    return added;
}

/* Copy a node's name out from under the lock. */
static bool get_name(struct tree *t, uint64_t id, char name[NAME_LIMIT], size_t *length)
{
    tree_lock(t);
    const struct node *n = tree_find(t, id);
    if (n) {
        *length = n->name_length;
        memcpy(name, node_name(n), *length);
    }
    tree_unlock(t);
    return n;
}

static void set_telling(struct tree *t, uint64_t id, bool telling, bool *told_old)
{
    tree_lock(t);
    struct node *n = tree_find(t, id);
    if (n && S_ISDIR(n->mode) && n->directory) {
        n->directory->telling = telling;
        *told_old = n->directory->told_old;
        n->directory->told_old = false;
    }
    tree_unlock(t);
}

static void tell_names(struct engine *e, const struct item *items, size_t count)
{
    char name[NAME_LIMIT];
    size_t length;
    for (size_t i = 0; i < count && !atomic_load(&e->stopping); i++) {
        const struct negative *missing = items[i].missing;
        if (missing)
            drop_name(e, missing->directory_id, missing->name, missing->length);
        else if (items[i].child && get_name(&e->tree, items[i].child, name, &length))
            expire_name(e, items[i].directory, name, length);
    }
    /* A client that is filling the cache of listings holds the lock: a name that cannot exist makes
     * us wait for it. */
    expire_name(e, items[0].directory, "/", 1);
}

/* Tell of one directory. False: somebody waits in it, so not now. */
static bool tell_directory(struct engine *e, const struct item *items, size_t count,
                           bool *told_old)
{
    uint64_t id = items[0].directory;
    bool ignored;
    set_telling(&e->tree, id, true, &ignored);
    bool is_free = !requests_wait_in(e, id);
    if (is_free)
        tell_names(e, items, count);
    set_telling(&e->tree, id, false, told_old);
    if (is_free)
        forget_listing(e, id);
    return is_free;
}

static void pause_milliseconds(long milliseconds)
{
    struct timespec moment = {0, milliseconds * 1000000};
    nanosleep(&moment, NULL);
}

/* Tell of all directories, those that are busy when they are not. Returns whether a listing was
 * answered from the old tree meanwhile. */
static bool tell(struct engine *e, struct item *items, size_t count)
{
    bool any_old = false;
    qsort(items, count, sizeof *items, by_directory);
    for (bool left = true; left && !atomic_load(&e->stopping);) {
        left = false;
        for (size_t from = 0, to; from < count && !atomic_load(&e->stopping); from = to) {
            bool told_old = false;
            for (to = from + 1; to < count && items[to].directory == items[from].directory; to++)
                ;
            if (!items[from].directory)
                continue;
            if (!tell_directory(e, items + from, to - from, &told_old))
                left = true;
            else
                for (size_t i = from; i < to; i++)
                    items[i].directory = 0;
            any_old |= told_old;
        }
        if (left)
            pause_milliseconds(5);
    }
    return any_old;
}

/* ---- the change ----------------------------------------------------------------------------- */

static struct item *items_for(size_t ids, size_t missing)
{
    return malloc((2 * ids + missing + 1) * sizeof(struct item));
}

/* What may have been told too early: see above. All listings, if one was answered as it was. */
static void tell_again(struct engine *e, const uint64_t *late, size_t late_count,
                       const uint64_t *all, size_t all_count)
{
    static const long moments[] = {10, 100};    /* milliseconds */
    struct item *items = items_for(late_count, 0);
    for (size_t i = 0; items && (late_count || all_count) && i < 2; i++) {
        pause_milliseconds(moments[i]);
        if (atomic_load(&e->stopping))
            break;
        tree_lock(&e->tree);
        size_t count = add_known(&e->tree, late, late_count, items);
        tree_unlock(&e->tree);
        tell(e, items, count);
        for (size_t j = 0; j < all_count; j++)
            forget_listing(e, all[j]);
    }
    free(items);
}

static void tell_of_change(struct engine *e)
{
    const int64_t LATELY = 100 * 1000000;
    struct tree *t = &e->tree;
    size_t known, late_count, count = 0;
    bool overflowed, told_old = false;
    tree_lock(t);
    t->generation++;
    uint64_t *ids = tree_known_ids(t, &known);
    uint64_t *late = tree_revalidated_ids(t, monotonic_now() - LATELY, &late_count);
    size_t missing = t->negative_count;
    struct negative *negatives = tree_take_negatives(t, &overflowed);
    struct item *items = items_for(known, missing);
    if (items)
        count = add_known(t, ids, known, items);
    tree_unlock(t);
    for (struct negative *n = negatives; items && n; n = n->next)
        items[count++] = (struct item){.directory = n->directory_id, .missing = n};
    if (e->minor && !atomic_load(&e->stopping)) {
        told_old = count && tell(e, items, count);
        if ((overflowed || !ids || !late || !items) && e->minor >= MINOR_INC_EPOCH)
            notify(e, NOTIFY_INC_EPOCH, NULL, 0, NULL, 0);
        tell_again(e, late, late_count, ids, told_old ? known : 0);
    }
    while (negatives) {
        struct negative *next = negatives->next;
        free(negatives);
        negatives = next;
    }
    free(items);
    free(late);
    free(ids);
}

/* The caller has counted itself in `telling`. */
void notify_tree_changed(struct engine *e)
{
    tell_of_change(e);
    atomic_fetch_sub(&e->telling, 1);
    engine_wake(e);
}

/* Wait until nobody writes to the device any more; it is about to be closed. */
void notify_wait(struct engine *e)
{
    while (atomic_load(&e->telling))
        pause_milliseconds(1);
}
