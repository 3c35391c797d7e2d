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
 * directory's lock, which a client holds while it waits for our answer to its lookup. The same lock
 * makes the order safe: a lookup answered from the old tree has put its dentry in place before the
 * expiry of that name gets the lock.
 *
 * That lock is not held when the kernel looks up a name it knows, to see whether it is still true:
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

/* The directory's own attributes and its cached listing. A client that is filling that cache from
 * the old tree holds the directory's lock; a name that cannot exist makes us wait for it. */
static void forget_listing(struct engine *e, uint64_t id)
{
    struct fuse_notify_inval_inode_out out = {.ino = id};
    expire_name(e, id, "/", 1);
    notify(e, FUSE_NOTIFY_INVAL_INODE, &out, sizeof out, NULL, 0);
}

struct known {
    uint64_t id, parent;
    bool is_directory;
    uint8_t name_length;
    char name[NAME_LIMIT];
};

static bool describe(struct tree *t, uint64_t id, struct known *known)
{
    const struct node *n = tree_find(t, id);
    if (!n)
        return false;
    known->id = id;
    known->parent = n->parent ? n->parent->id : 0;
    known->is_directory = S_ISDIR(n->mode);
    known->name_length = n->name_length;
    memcpy(known->name, node_name(n), n->name_length);
    return true;
}

static void expire_nodes(struct engine *e, const uint64_t *ids, size_t count, bool with_listings)
{
    struct tree *t = &e->tree;
    for (size_t i = 0; i < count && !atomic_load(&e->stopping); i++) {
        struct known one;
        tree_lock(t);
        bool is_known = describe(t, ids[i], &one);
        tree_unlock(t);
        if (is_known && one.parent)
            expire_name(e, one.parent, one.name, one.name_length);
        if (is_known && one.is_directory && with_listings)
            forget_listing(e, one.id);
    }
}

static void forget_negatives(struct engine *e, struct negative *gone, bool is_mounted)
{
    while (gone) {
        struct negative *next = gone->next;
        if (is_mounted)
            drop_name(e, gone->directory_id, gone->name, gone->length);
        free(gone);
        gone = next;
    }
}

void notify_tree_changed(struct engine *e)
{
    const int64_t MILLISECOND = 1000000, LATELY = 100 * MILLISECOND;
    static const int moments[] = {10, 100};     /* milliseconds */
    struct tree *t = &e->tree;
    size_t count, late_count;
    bool overflowed;
    tree_lock(t);
    t->generation++;
    uint64_t *ids = tree_known_ids(t, &count);
    uint64_t *late = tree_revalidated_ids(t, monotonic_now() - LATELY, &late_count);
    struct negative *gone = tree_take_negatives(t, &overflowed);
    tree_unlock(t);
    bool is_mounted = e->minor != 0 && !atomic_load(&e->stopping);
    if (is_mounted)
        expire_nodes(e, ids, count, true);
    forget_negatives(e, gone, is_mounted);
    if (is_mounted && (overflowed || !ids || !late) && e->minor >= MINOR_INC_EPOCH)
        notify(e, NOTIFY_INC_EPOCH, NULL, 0, NULL, 0);
    for (size_t i = 0; i < 2 && is_mounted && late_count; i++) {
        struct timespec moment = {0, moments[i] * MILLISECOND};
        nanosleep(&moment, NULL);
        expire_nodes(e, late, late_count, false);
    }
    free(late);
    free(ids);
}
