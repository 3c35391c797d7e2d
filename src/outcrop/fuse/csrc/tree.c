/* Nodes and directory tables. Everything here runs under tree.lock and calls nothing that waits. */
#include "engine.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

/* ---- names ---------------------------------------------------------------------------------- */

/* SipHash-1-3 with a random key: names come from catalogs, and whoever wrote them must not be able
 * to make them collide. */
static inline uint64_t rotate(uint64_t x, int by) { return (x << by) | (x >> (64 - by)); }

static inline void sip_round(uint64_t v[4])
{
    v[0] += v[1]; v[1] = rotate(v[1], 13); v[1] ^= v[0]; v[0] = rotate(v[0], 32);
    v[2] += v[3]; v[3] = rotate(v[3], 16); v[3] ^= v[2];
    v[0] += v[3]; v[3] = rotate(v[3], 21); v[3] ^= v[0];
    v[2] += v[1]; v[1] = rotate(v[1], 17); v[1] ^= v[2]; v[2] = rotate(v[2], 32);
}

static uint64_t siphash13(const uint64_t seed[2], const char *data, size_t length)
{
    uint64_t v[4] = {
        seed[0] ^ 0x736f6d6570736575u, seed[1] ^ 0x646f72616e646f6du,
        seed[0] ^ 0x6c7967656e657261u, seed[1] ^ 0x7465646279746573u,
    };
    uint64_t word, last = (uint64_t)length << 56;
    size_t i = 0;
    for (; i + 8 <= length; i += 8) {
        memcpy(&word, data + i, 8);
        v[3] ^= word;
        sip_round(v);
        v[0] ^= word;
    }
    for (int shift = 0; i < length; i++, shift += 8)
        last |= (uint64_t)(unsigned char)data[i] << shift;
    v[3] ^= last;
    sip_round(v);
    v[0] ^= last;
    v[2] ^= 0xff;
    for (i = 0; i < 3; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* Keys are READDIR cookies: positive as loff_t, with room below for "." and "..", and above for
 * the few that listing_sort pushes up. */
uint64_t tree_name_key(const struct tree *t, const char *name, size_t length)
{
    return (siphash13(t->seed, name, length) >> 2) + 16;
}

static bool has_name(const struct node *n, const char *name, size_t length)
{
    return n->name_length == length && memcmp(node_name(n), name, length) == 0;
}

/* ---- nodes ---------------------------------------------------------------------------------- */

struct node *node_new(const char *name, size_t name_length, const char *tail, size_t tail_length)
{
    struct node *n = malloc(sizeof *n + name_length + tail_length);
    if (!n)
        return NULL;
    memset(n, 0, sizeof *n);
    n->name_length = (uint8_t)name_length;
    memcpy(n->bytes, name, name_length);
    if (tail_length)
        memcpy(n->bytes + name_length, tail, tail_length);
    return n;
}

static void unlink_by_use(struct directory *d)
{
    if (!d->newer)
        return;
    d->newer->older = d->older;
    d->older->newer = d->newer;
    d->newer = d->older = NULL;
}

void tree_touch(struct tree *t, struct directory *d)
{
    if (t->newest.older == d)
        return;
    unlink_by_use(d);
    d->older = t->newest.older;
    d->newer = &t->newest;
    d->older->newer = d;
    t->newest.older = d;
}

static void free_node(struct tree *t, struct node *n)
{
    if (S_ISDIR(n->mode)) {
        if (n->directory) {
            unlink_by_use(n->directory);
            free(n->directory->entries);
            free(n->directory);
        }
    } else {
        extents_drop_all(t, n);
    }
    t->nodes--;
    free(n);
}

/* Leave a hole rather than move the rest: forgetting a directory of a million names must not be
 * quadratic. */
static void remove_entry(struct tree *t, struct node *n)
{
    struct directory *d = n->parent->directory;
    uint64_t key = tree_name_key(t, node_name(n), n->name_length);
    uint32_t low = directory_after(d, key - 1);
    while (d->entries[low].node != n)
        low++;
    d->entries[low].node = NULL;
    n->attached = false;
    t->rows--;
    if (++d->removed * 2 <= d->count)
        return;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < d->count; i++)
        if (d->entries[i].node)
            d->entries[kept++] = d->entries[i];
    d->count = kept;
    d->removed = 0;
    struct entry *smaller = realloc(d->entries, (kept ? kept : 1) * sizeof *smaller);
    if (smaller)
        d->entries = smaller;
}

/* Free a node nobody needs any more, then its ancestors for which that was the last reason. */
static void settle(struct tree *t, struct node *n)
{
    while (n != t->root && n->nlookup == 0 && n->holds == 0) {
        struct node *parent = n->parent;
        if (n->attached) {
            if (parent->directory->complete)
                return;         /* it may be looked up again without asking the view */
            remove_entry(t, n);
        }
        free_node(t, n);
        parent->holds--;
        n = parent;
    }
}

void tree_hold(struct node *n) { n->holds++; }

void tree_release(struct tree *t, struct node *n)
{
    n->holds--;
    settle(t, n);
}

/* ---- what the kernel knows ------------------------------------------------------------------ */

static struct node **bucket(struct tree *t, uint64_t id)
{
    return &t->buckets[id & (t->bucket_count - 1)];
}

/* Ids are consecutive, so the low bits spread them perfectly. */
static void grow_buckets(struct tree *t)
{
    size_t count = t->bucket_count * 2;
    struct node **larger = calloc(count, sizeof *larger);
    if (!larger)
        return;                 /* slower, not wrong */
    for (size_t i = 0; i < t->bucket_count; i++) {
        struct node *n = t->buckets[i], *next;
        for (; n; n = next) {
            next = n->next_by_id;
            struct node **slot = &larger[n->id & (count - 1)];
            n->next_by_id = *slot;
            *slot = n;
        }
    }
    free(t->buckets);
    t->buckets = larger;
    t->bucket_count = count;
}

struct node *tree_find(struct tree *t, uint64_t id)
{
    for (struct node *n = *bucket(t, id); n; n = n->next_by_id)
        if (n->id == id)
            return n;
    return NULL;
}

void tree_reference(struct tree *t, struct node *n)
{
    if (n->nlookup++)
        return;
    if (++t->known > t->bucket_count)
        grow_buckets(t);
    n->id = t->next_id++;
    struct node **slot = bucket(t, n->id);
    n->next_by_id = *slot;
    *slot = n;
}

void tree_forget(struct tree *t, uint64_t id, uint64_t nlookup)
{
    struct node *n = tree_find(t, id);
    if (!n || n == t->root)
        return;
    n->nlookup -= nlookup < n->nlookup ? nlookup : n->nlookup;
    if (n->nlookup)
        return;
    struct node **slot = bucket(t, id);
    while (*slot != n)
        slot = &(*slot)->next_by_id;
    *slot = n->next_by_id;
    n->id = 0;
    t->known--;
    if (S_ISREG(n->mode))
        extents_drop_all(t, n);
    settle(t, n);
}

/* ---- directories ---------------------------------------------------------------------------- */

struct directory *tree_directory(struct node *n)
{
    if (!n->directory) {
        n->directory = calloc(1, sizeof *n->directory);
        if (n->directory)
            n->directory->node = n;
    }
    return n->directory;
}

/* Index of the first entry with a key above the cookie. */
uint32_t directory_after(const struct directory *d, uint64_t cookie)
{
    uint32_t low = 0, high = d->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (d->entries[middle].key > cookie)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* A name's entry has the key of its name, or, where others have that too, one of the keys that
 * follow it without a gap. */
static struct entry *find_entry(struct tree *t, struct directory *d, const char *name,
                                size_t length)
{
    uint64_t key = tree_name_key(t, name, length);
    for (uint32_t i = directory_after(d, key - 1); i < d->count; i++, key++) {
        if (d->entries[i].key != key)
            return NULL;
        if (d->entries[i].node && has_name(d->entries[i].node, name, length))
            return &d->entries[i];
    }
    return NULL;
}

struct node *directory_find(struct tree *t, struct directory *d, const char *name, size_t length)
{
    struct entry *found = d->count ? find_entry(t, d, name, length) : NULL;
    return found ? found->node : NULL;
}

/* The paths of these nodes are gone: free what the kernel does not know, and keep the rest for the
 * files that are open and the directories somebody stands in. Depth is the catalog's choice, so
 * this is a worklist and no recursion. */
static void detach(struct tree *t, struct node *n)
{
    struct directory *pending = NULL;
    n->attached = false;
    t->rows--;
    if (!S_ISDIR(n->mode) || !n->directory) {
        settle(t, n);
        return;
    }
    tree_hold(n);
    n->directory->pending = NULL;
    pending = n->directory;
    while (pending) {
        struct directory *d = pending;
        pending = d->pending;
        for (uint32_t i = 0; i < d->count; i++) {
            struct node *child = d->entries[i].node;
            if (!child)
                continue;
            child->attached = false;
            t->rows--;
            if (S_ISDIR(child->mode) && child->directory) {
                tree_hold(child);
                child->directory->pending = pending;
                pending = child->directory;
            } else {
                settle(t, child);
            }
        }
        free(d->entries);
        d->entries = NULL;
        d->count = d->removed = 0;
        d->complete = false;
        d->generation = 0;
        unlink_by_use(d);
        tree_release(t, d->node);
    }
}

/* Drop the rows the kernel does not know; if there are none, the table stays what it was. */
static void drop_rows(struct tree *t, struct directory *d)
{
    uint32_t kept = 0, dropped = 0;
    for (uint32_t i = 0; i < d->count; i++) {
        struct node *child = d->entries[i].node;
        if (!child)
            continue;
        if (child->nlookup || child->holds) {
            d->entries[kept++] = d->entries[i];
            continue;
        }
        free_node(t, child);
        dropped++;
    }
    d->count = kept;
    d->removed = 0;
    if (!dropped) {
        tree_touch(t, d);       /* not again before the others had their turn */
        return;
    }
    t->rows -= dropped;
    d->node->holds -= dropped;
    d->complete = false;
    struct entry *smaller = realloc(d->entries, (kept ? kept : 1) * sizeof *smaller);
    if (smaller)
        d->entries = smaller;
    unlink_by_use(d);
}

/* Tables beyond the limit go, least recently used first. What the kernel references stays, so a
 * table may give nothing: the scan is bounded, or each load would walk all directories. */
static void trim(struct tree *t, const struct directory *except)
{
    enum { SCAN = 64 };
    for (int i = 0; i < SCAN && t->rows > t->max_rows; i++) {
        struct directory *d = t->newest.newer;
        if (d == except || d == &t->newest)
            return;
        if (d->loading) {
            tree_touch(t, d);
            continue;
        }
        struct node *n = d->node;
        tree_hold(n);
        drop_rows(t, d);
        tree_release(t, n);
    }
}

/* Whether a listed row is what the kernel knows by that name: then it keeps its node, and with it
 * page cache, working directories and open files. */
static bool is_same(const struct node *a, const struct node *b)
{
    if ((a->mode & S_IFMT) != (b->mode & S_IFMT))
        return false;
    if (S_ISDIR(a->mode))
        return true;
    if (S_ISLNK(a->mode))
        return a->target_length == b->target_length &&
               memcmp(node_tail(a), node_tail(b), a->target_length) == 0;
    if (S_ISREG(a->mode))
        return a->kind == b->kind && a->size == b->size && a->content_length == b->content_length &&
               memcmp(node_tail(a), node_tail(b), a->content_length) == 0;
    return a->rdev == b->rdev;
}

static void copy_attributes(struct node *to, const struct node *from)
{
    if (!to->nlookup)           /* else the kernel has shown the old number */
        to->ino = from->ino;
    to->size = from->size;
    to->mtime = from->mtime;
    to->mtime_ns = from->mtime_ns;
    to->nlink = from->nlink;
    to->uid = from->uid;
    to->gid = from->gid;
    to->mode = from->mode;
    to->bits = from->bits;
}

/* Make the listing the directory's table. Takes the rows over. */
void tree_install(struct tree *t, struct directory *d, struct listing *rows, uint64_t generation)
{
    for (uint32_t i = 0; i < rows->count; i++) {
        struct node *n = rows->entries[i].node;
        struct entry *old =
            d->count ? find_entry(t, d, node_name(n), n->name_length) : NULL;
        if (old && is_same(old->node, n)) {
            copy_attributes(old->node, n);
            rows->entries[i].node = old->node;
            old->node = NULL;
            free(n);
            continue;
        }
        n->parent = d->node;
        n->attached = true;
        d->node->holds++;
        t->nodes++;
        t->rows++;
    }
    struct entry *before = d->entries;
    uint32_t before_count = d->count;
    d->entries = rows->entries;
    d->count = rows->count;
    d->removed = 0;
    d->generation = generation;
    d->complete = true;
    rows->entries = NULL;
    rows->count = 0;
    for (uint32_t i = 0; i < before_count; i++)
        if (before[i].node)
            detach(t, before[i].node);
    free(before);
    tree_touch(t, d);
    trim(t, d);
}

void tree_set_root(struct tree *t, struct node *row, uint64_t generation)
{
    copy_attributes(t->root, row);
    if (!t->root_generation)
        t->root->ino = row->ino;
    t->root_generation = generation;
    free(row);
}

/* ---- listings: rows not yet in a tree ------------------------------------------------------- */

static int by_key_then_name(const void *left, const void *right)
{
    const struct entry *a = left, *b = right;
    if (a->key != b->key)
        return a->key < b->key ? -1 : 1;
    size_t a_length = a->node->name_length, b_length = b->node->name_length;
    int order = memcmp(node_name(a->node), node_name(b->node),
                       a_length < b_length ? a_length : b_length);
    return order ? order : (a_length > b_length) - (a_length < b_length);
}

/* Bring rows into the order of a table. Returns a row whose name occurs twice, or NULL. */
const struct node *listing_sort(struct listing *rows)
{
    if (rows->count > 1)
        qsort(rows->entries, rows->count, sizeof *rows->entries, by_key_then_name);
    for (uint32_t i = 1; i < rows->count; i++)
        if (by_key_then_name(&rows->entries[i - 1], &rows->entries[i]) == 0)
            return rows->entries[i].node;
    for (uint32_t i = 1; i < rows->count; i++)
        if (rows->entries[i].key <= rows->entries[i - 1].key)
            rows->entries[i].key = rows->entries[i - 1].key + 1;
    return NULL;
}

void listing_free(struct listing *rows)
{
    for (uint32_t i = 0; i < rows->count; i++)
        free(rows->entries[i].node);
    free(rows->entries);
    rows->entries = NULL;
    rows->count = 0;
}

/* ---- paths ---------------------------------------------------------------------------------- */

/* The path as the view knows it, from malloc; NULL if it is too long to be one. A node whose path
 * is gone gives the last one it had. */
char *tree_path(const struct node *n, size_t *length)
{
    size_t total = 0;
    for (const struct node *p = n; p->parent; p = p->parent)
        total += 1 + (size_t)p->name_length;
    *length = total;
    char *path = total <= PATH_LIMIT ? malloc(total + 1) : NULL;
    if (!path)
        return NULL;
    path[total] = '\0';
    for (const struct node *p = n; p->parent; p = p->parent) {
        total -= p->name_length;
        memcpy(path + total, node_name(p), p->name_length);
        path[--total] = '/';
    }
    return path;
}

/* ---- names the kernel has just asked for, known or not --------------------------------------- */

int64_t monotonic_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* A known node is looked up again: the kernel revalidates its dentry. */
void tree_note_revalidation(struct tree *t, const struct node *n)
{
    t->revalidations[t->revalidation_count++ % REVALIDATIONS] =
        (struct revalidation){n->id, monotonic_now()};
}

uint64_t *tree_known_ids(const struct tree *t, size_t *count)
{
    uint64_t *ids = malloc((t->known + 1) * sizeof *ids);
    *count = 0;
    for (size_t i = 0; ids && i < t->bucket_count; i++)
        for (const struct node *n = t->buckets[i]; n; n = n->next_by_id)
            ids[(*count)++] = n->id;
    return ids;
}

/* Nodes looked up again since then; all that are known if those were too many to remember. */
uint64_t *tree_revalidated_ids(const struct tree *t, int64_t since, size_t *count)
{
    size_t filled = t->revalidation_count < REVALIDATIONS ? t->revalidation_count : REVALIDATIONS;
    *count = 0;
    if (t->revalidation_count > REVALIDATIONS &&
        t->revalidations[t->revalidation_count % REVALIDATIONS].at >= since)
        return tree_known_ids(t, count);
    uint64_t *ids = malloc((filled + 1) * sizeof *ids);
    for (size_t i = 0; ids && i < filled; i++)
        if (t->revalidations[i].at >= since)
            ids[(*count)++] = t->revalidations[i].id;
    return ids;
}

/* ---- names that are not there --------------------------------------------------------------- */

void tree_remember_negative(struct tree *t, uint64_t directory_id, const char *name, size_t length)
{
    uint64_t key = tree_name_key(t, name, length);
    struct negative **slot = &t->negatives[(key ^ directory_id) % NEGATIVE_BUCKETS];
    for (struct negative *n = *slot; n; n = n->next)
        if (n->key == key && n->directory_id == directory_id && n->length == length &&
            memcmp(n->name, name, length) == 0)
            return;
    struct negative *n =
        t->negative_count < NEGATIVE_LIMIT ? malloc(sizeof *n + length) : NULL;
    if (!n) {
        t->negatives_overflowed = true;
        return;
    }
    n->directory_id = directory_id;
    n->key = key;
    n->length = (uint8_t)length;
    memcpy(n->name, name, length);
    n->next = *slot;
    *slot = n;
    t->negative_count++;
}

struct negative *tree_take_negatives(struct tree *t, bool *overflowed)
{
    struct negative *all = NULL;
    for (size_t i = 0; i < NEGATIVE_BUCKETS; i++) {
        while (t->negatives[i]) {
            struct negative *n = t->negatives[i];
            t->negatives[i] = n->next;
            n->next = all;
            all = n;
        }
    }
    *overflowed = t->negatives_overflowed;
    t->negatives_overflowed = false;
    t->negative_count = 0;
    return all;
}

/* ---- the tree ------------------------------------------------------------------------------- */

int tree_init(struct tree *t, size_t max_rows, size_t max_extents)
{
    t->bucket_count = 1024;
    t->buckets = calloc(t->bucket_count, sizeof *t->buckets);
    t->negatives = calloc(NEGATIVE_BUCKETS, sizeof *t->negatives);
    t->revalidations = calloc(REVALIDATIONS, sizeof *t->revalidations);
    t->root = node_new("", 0, NULL, 0);
    if (!t->buckets || !t->negatives || !t->revalidations || !t->root ||
        getrandom(t->seed, sizeof t->seed, 0) != sizeof t->seed) {
        free(t->buckets);
        free(t->negatives);
        free(t->revalidations);
        free(t->root);
        t->root = NULL;         /* tree_destroy() does nothing */
        return -1;
    }
    pthread_mutex_init(&t->lock, NULL);
    t->root->mode = S_IFDIR | 0555;
    t->root->nlink = 2;
    t->root->ino = 1;
    t->root->attached = true;
    t->nodes = 1;
    t->next_id = ROOT_ID;
    tree_reference(t, t->root);
    t->generation = 1;
    t->max_rows = max_rows;
    t->max_extents = max_extents;
    t->newest.newer = t->newest.older = &t->newest;
    return 0;
}

void tree_destroy(struct tree *t)
{
    if (!t->root)
        return;
    /* Without a lookup count left, detaching the root's children frees all of them. */
    for (size_t i = 0; i < t->bucket_count; i++) {
        struct node *n, *next;
        for (n = t->buckets[i]; n; n = next) {
            next = n->next_by_id;
            if (n != t->root) {
                tree_hold(n);
                n->nlookup = 0;
                n->id = 0;
            }
        }
    }
    for (size_t i = 0; i < t->bucket_count; i++) {
        struct node *n, *next;
        for (n = t->buckets[i]; n; n = next) {
            next = n->next_by_id;
            if (n != t->root)
                tree_release(t, n);
        }
    }
    t->rows++;                  /* detach() counts the root as a row */
    detach(t, t->root);
    free_node(t, t->root);
    t->root = NULL;
    bool overflowed;
    struct negative *n = tree_take_negatives(t, &overflowed);
    while (n) {
        struct negative *next = n->next;
        free(n);
        n = next;
    }
    free(t->negatives);
    free(t->revalidations);
    free(t->buckets);
    extents_close(t->doomed);
    t->doomed = NULL;
    pthread_mutex_destroy(&t->lock);
}

void tree_lock(struct tree *t) { pthread_mutex_lock(&t->lock); }

/* close(2) may wait for a network file system; not while everybody waits for us. */
void tree_unlock(struct tree *t)
{
    struct extent *doomed = t->doomed;
    t->doomed = NULL;
    pthread_mutex_unlock(&t->lock);
    if (doomed)
        extents_close(doomed);
}
