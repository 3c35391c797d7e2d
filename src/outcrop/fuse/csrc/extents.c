/* Which open files hold the bytes of a node. Under tree.lock, but for extents_close. */
#include "engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void unlink_by_use(struct tree *t, struct extent *e)
{
    *(e->newer ? &e->newer->older : &t->newest_extent) = e->older;
    *(e->older ? &e->older->newer : &t->oldest_extent) = e->newer;
}

static void link_newest(struct tree *t, struct extent *e)
{
    e->newer = NULL;
    e->older = t->newest_extent;
    *(e->older ? &e->older->newer : &t->oldest_extent) = e;
    t->newest_extent = e;
}

/* Index of the first extent that begins after the offset. */
static uint32_t extents_after(const struct file *f, uint64_t offset)
{
    uint32_t low = 0, high = f->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (f->extents[middle]->offset > offset)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static bool covers(const struct extent *e, uint64_t offset)
{
    return offset >= e->offset && offset - e->offset < e->length;
}

struct extent *extent_find(struct node *n, uint64_t offset)
{
    if (!n->file)
        return NULL;
    uint32_t after = extents_after(n->file, offset);
    if (after == 0 || !covers(n->file->extents[after - 1], offset))
        return NULL;
    return n->file->extents[after - 1];
}

struct file *node_file(struct node *n)
{
    if (!n->file)
        n->file = calloc(1, sizeof *n->file);
    return n->file;
}

void node_file_trim(struct node *n)
{
    if (n->file && !n->file->count && !n->file->faults) {
        free(n->file->extents);
        free(n->file);
        n->file = NULL;
    }
}

/* Remember where bytes are. The fd is taken over only if this returns 0. Extents that overlap the
 * new one are dropped: a view may answer in other pieces after it lost a file. */
int extent_add(struct tree *t, struct node *n, const struct extent *template)
{
    for (uint32_t i = n->file ? n->file->count : 0; n->file && i-- > 0;) {
        const struct extent *old = n->file->extents[i];
        if (old->offset - template->offset < template->length ||
            template->offset - old->offset < old->length)
            extent_drop(t, n->file->extents[i]);
    }
    extents_evict(t, t->max_extents - 1);
    struct file *f = node_file(n);      /* now: the drops above free an empty one */
    struct extent *e = malloc(sizeof *e);
    if (f && f->count == f->capacity) {
        uint32_t capacity = f->capacity ? f->capacity * 2 : 1;
        struct extent **larger = realloc(f->extents, capacity * sizeof(struct extent *));
        if (larger) {
            f->extents = larger;
            f->capacity = capacity;
        }
    }
    if (!f || !e || f->count == f->capacity) {
        node_file_trim(n);
        free(e);
        return ENOMEM;
    }
    *e = *template;
    e->node = n;
    e->users = 0;
    e->listed = true;
    uint32_t at = extents_after(f, e->offset);
    memmove(f->extents + at + 1, f->extents + at, (f->count - at) * sizeof(struct extent *));
    f->extents[at] = e;
    f->count++;
    link_newest(t, e);
    t->extents++;
    return 0;
}

static void doom(struct tree *t, struct extent *e)
{
    e->older = t->doomed;
    t->doomed = e;
}

void extent_use(struct tree *t, struct extent *e)
{
    e->users++;
    if (t->newest_extent != e) {
        unlink_by_use(t, e);
        link_newest(t, e);
    }
}

void extent_done(struct tree *t, struct extent *e)
{
    if (--e->users == 0 && !e->listed)
        doom(t, e);
}

/* Forget an extent; reads under way finish with it. */
void extent_drop(struct tree *t, struct extent *e)
{
    if (!e->listed)
        return;
    struct file *f = e->node->file;
    uint32_t at = extents_after(f, e->offset) - 1;
    memmove(f->extents + at, f->extents + at + 1, (f->count - at - 1) * sizeof(struct extent *));
    f->count--;
    unlink_by_use(t, e);
    t->extents--;
    e->listed = false;
    node_file_trim(e->node);
    e->node = NULL;
    if (e->users == 0)
        doom(t, e);
}

void extents_drop_all(struct tree *t, struct node *n)
{
    if (!S_ISREG(n->mode))
        return;
    while (n->file && n->file->count)
        extent_drop(t, n->file->extents[n->file->count - 1]);
}

/* Keep at most so many, dropping the least recently used. */
void extents_evict(struct tree *t, size_t keep)
{
    while (t->extents > keep && t->oldest_extent)
        extent_drop(t, t->oldest_extent);
}

void extents_close(struct extent *doomed)
{
    while (doomed) {
        struct extent *next = doomed->older;
        close(doomed->fd);
        free(doomed);
        doomed = next;
    }
}
