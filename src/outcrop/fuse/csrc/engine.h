/* The FUSE engine: what its parts share.
 *
 *   tree.c      nodes and directory tables: what the kernel knows, what the view listed
 *   extents.c   which open files hold the bytes of a node
 *   requests.c  one request in, one answer out
 *   workers.c   threads: who reads the device, who may wait for Python
 *   notify.c    what the kernel is told when the tree has changed
 *   ../_engine.c  the Python type, and every call into Python (hooks)
 *
 * Locks, in the order in which they may be taken:
 *
 *   the GIL  >  tree.lock        nobody waits for the GIL while holding tree.lock
 *   pool.lock, slow.lock         leaves: nothing else is taken while holding one
 *
 * No pointer to a node is used after tree.lock was let go unless the node is held (`holds`).
 */
#ifndef OUTCROP_ENGINE_H
#define OUTCROP_ENGINE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <linux/fuse.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

/* What kernel headers older than the running kernel lack (protocol 7.38 and later). */
#ifndef FUSE_EXPIRE_ONLY
#define FUSE_EXPIRE_ONLY (1 << 0)
#endif
#ifndef FUSE_HAS_EXPIRE_ONLY
#define FUSE_HAS_EXPIRE_ONLY (1ULL << 35)
#endif
#ifndef FUSE_INIT_EXT
#define FUSE_INIT_EXT (1 << 30)
#endif
enum { NOTIFY_INC_EPOCH = 8, MINOR_INC_EPOCH = 44, MINOR_KNOWN = 45, MINOR_NEEDED = 23 };

enum {
    ROOT_ID = 1,
    NAME_LIMIT = 255,
    TARGET_LIMIT = 4095,        /* the kernel's page for a symlink less its NUL */
    CONTENT_LIMIT = 65535,
    DIGEST_SIZE = 20,
    PATH_LIMIT = 65536,
    XATTR_LIMIT = 65536,        /* XATTR_SIZE_MAX */
    REQUEST_LIMIT = 65536,      /* read buffer; we accept no writes, so requests are small */
    REPLY_LIMIT = 1 << 20,      /* largest READ we negotiate (max_pages) */
    SMALL_FILE = 128 * 1024,    /* read whole by one readahead: its fd is not worth keeping */
};

/* ---- nodes and directories (tree.c) ------------------------------------------------------- */

/* view.py: Row.kind and Row.bits */
enum { OPAQUE = 0, OBJECT_SHA1 = 1, OBJECT_RMD160 = 2, OBJECT_SHAKE128 = 3, KIND_MASK = 15 };
enum { ROW_HAS_XATTRS = 1, ROW_HIDDEN = 2, ROW_DIRECT_IO = 4 };

/* One directory entry. It lives as long as its directory's table has it (`attached`), the kernel
 * has looked it up (`nlookup`), or something holds it. The strings follow the struct. */
struct node {
    uint64_t id;                /* 0: unknown to the kernel. Never reused */
    uint64_t nlookup;
    struct node *parent;
    struct node *next_by_id;
    union {
        struct directory *directory;    /* of a directory, once listed */
        struct file *file;              /* of a regular file, while extents are open */
    };
    uint64_t ino;
    uint64_t size;
    int64_t mtime;
    uint32_t mtime_ns;
    uint32_t nlink, uid, gid, rdev;
    uint32_t holds;             /* children that point here, calls under way */
    uint16_t mode;
    uint16_t content_length;
    uint16_t target_length;
    uint8_t name_length;
    uint8_t kind;
    uint8_t bits;
    bool attached;              /* its parent's table has it; else its path is gone */
    char bytes[];               /* name, then target or content; no NULs */
};

static inline const char *node_name(const struct node *n) { return n->bytes; }
static inline const char *node_tail(const struct node *n) { return n->bytes + n->name_length; }

/* `key` is a keyed hash of the name: the order of the table, and the cookie of READDIR. A listing
 * that continues after the table was replaced therefore neither skips nor repeats a name. */
struct entry {
    uint64_t key;
    struct node *node;          /* NULL: removed */
};

struct directory {
    struct node *node;
    struct entry *entries;      /* ascending by key, all keys different */
    uint32_t count;
    uint32_t removed;           /* of count, how many are NULL */
    uint64_t generation;        /* of the tree when listed; 0 never */
    bool complete;              /* false: nodes the kernel did not know were dropped */
    bool loading;
    bool telling;               /* notify.c is at its names: requests for it must not wait */
    bool told_old;              /* meanwhile it was listed as it was */
    struct request *waiters;    /* while loading */
    struct directory *newer, *older;    /* by use; both NULL: not in that list */
    struct directory *pending;  /* worklist of detach() */
};

/* Names the kernel was told are not there, so that a new tree can take that back. */
struct negative {
    struct negative *next;
    uint64_t directory_id;
    uint64_t key;
    uint8_t length;
    char name[];
};
enum { NEGATIVE_BUCKETS = 4096, NEGATIVE_LIMIT = 65536, REVALIDATIONS = 1024 };

struct tree {
    pthread_mutex_t lock;
    struct node *root;
    struct node **buckets;      /* by id; a power of two of them */
    size_t bucket_count;
    size_t known;               /* nodes with nlookup > 0 */
    uint64_t next_id;
    uint64_t generation;        /* +1 by tree_changed; starts at 1 */
    uint64_t root_generation;   /* when root's own row was read */
    uint64_t seed[2];
    size_t nodes, rows, max_rows;
    struct directory newest;    /* ends of the list by use; newest.older is the newest */
    /* Names looked up again lately, for notify.c; a ring. */
    struct revalidation { uint64_t id; int64_t at; } *revalidations;
    size_t revalidation_count;
    struct negative **negatives;
    size_t negative_count;
    bool negatives_overflowed;
    /* extents.c */
    struct extent *newest_extent, *oldest_extent;
    size_t extents, max_extents;
    struct extent *doomed;      /* closed by tree_unlock, outside the lock */
};

/* A listing being converted: nodes not yet in any tree. */
struct listing {
    struct entry *entries;
    uint32_t count;
};

int tree_init(struct tree *t, size_t max_rows, size_t max_extents);
void tree_destroy(struct tree *t);
int64_t monotonic_now(void);         /* nanoseconds */
void tree_lock(struct tree *t);
void tree_unlock(struct tree *t);
struct node *tree_find(struct tree *t, uint64_t id);
void tree_hold(struct node *n);
void tree_release(struct tree *t, struct node *n);
void tree_reference(struct tree *t, struct node *n);
void tree_forget(struct tree *t, uint64_t id, uint64_t nlookup);
struct directory *tree_directory(struct node *n);
void tree_touch(struct tree *t, struct directory *d);
struct node *directory_find(struct tree *t, struct directory *d, const char *name, size_t length);
uint32_t directory_after(const struct directory *d, uint64_t cookie);
void tree_install(struct tree *t, struct directory *d, struct listing *rows, uint64_t generation);
void tree_set_root(struct tree *t, struct node *row, uint64_t generation);
char *tree_path(const struct node *n, size_t *length);
void tree_note_revalidation(struct tree *t, const struct node *n);
uint64_t *tree_known_ids(const struct tree *t, size_t *count);
uint64_t *tree_revalidated_ids(const struct tree *t, int64_t since, size_t *count);
void tree_remember_negative(struct tree *t, uint64_t directory_id, const char *name, size_t length);
struct negative *tree_take_negatives(struct tree *t, bool *overflowed);
struct node *node_new(const char *name, size_t name_length, const char *tail, size_t tail_length);
uint64_t tree_name_key(const struct tree *t, const char *name, size_t length);
const struct node *listing_sort(struct listing *rows);
void listing_free(struct listing *rows);

/* ---- extents (extents.c); all under tree.lock unless said otherwise ------------------------- */

struct extent {
    int fd;
    uint32_t users;             /* preads under way */
    bool listed;                /* false: dropped, closed by its last user */
    uint8_t wait;               /* enum extent_wait */
    uint64_t offset, length, position;
    struct node *node;
    struct extent *newer, *older;
};
enum extent_wait { WAIT_UNKNOWN, WAIT_TELLS, WAIT_NEVER, WAIT_MAYBE };

/* A call of View.open_extent under way; others who need the same bytes wait for it. */
struct fault {
    uint64_t offset;
    struct fault *next;
    struct request *waiters;
};

struct file {
    struct extent **extents;    /* ascending by offset */
    uint32_t count, capacity;
    struct fault *faults;
};

struct extent *extent_find(struct node *n, uint64_t offset);
int extent_add(struct tree *t, struct node *n, const struct extent *template);
void extent_use(struct tree *t, struct extent *e);
void extent_done(struct tree *t, struct extent *e);
void extent_drop(struct tree *t, struct extent *e);
void extents_drop_all(struct tree *t, struct node *n);
void extents_evict(struct tree *t, size_t keep);
void extents_close(struct extent *doomed);          /* without the lock */
struct file *node_file(struct node *n);
void node_file_trim(struct node *n);

/* ---- requests (requests.c) ------------------------------------------------------------------ */

struct request {
    uint64_t unique;
    uint64_t nodeid;
    uint32_t opcode, pid;
    uint32_t length;            /* of body */
    const char *body;
    bool slow;                  /* on the heap and in slow.requests: an interrupt may answer it */
    bool answered;              /* by an interrupt */
    bool interrupted;           /* by a signal that does not kill */
    bool retried;               /* a file came up short once already */
    struct request *queued;     /* next in a job queue or a list of waiters */
    struct request *newer, *older;
    char storage[];
};

enum outcome { ANSWERED, NEEDS_THREAD, PARKED };

/* Requests that may wait for Python. */
struct slow {
    pthread_mutex_t lock;
    struct request ends;        /* ends.older is the newest */
    size_t interrupted;
};

/* ---- threads (workers.c) -------------------------------------------------------------------- */

struct worker {
    struct engine *engine;
    pthread_t thread;
    struct worker *newer, *older;
    bool in_read;               /* under pool.lock: may be blocked in read() */
    void *python;               /* PyThreadState once it called Python */
    char *in;                   /* REQUEST_LIMIT */
    char *out;                  /* REPLY_LIMIT, mapped when first needed */
};

struct pool {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct worker ends;
    size_t threads, starting, idle, base, limit;
    bool has_leader;
    struct worker *on_loan;     /* the leader, away for what should not take long */
    int64_t loan_since, last_slow, busy_until;  /* CLOCK_MONOTONIC, nanoseconds */
    size_t watchers;            /* idle threads that look after a loan */
    struct request *first_job, *last_job;
    size_t jobs;
};

/* ---- the engine ----------------------------------------------------------------------------- */

enum { COUNTERS = 64, OTHER_OPERATION = 0 };

struct engine {
    int device;
    int object_directory;       /* -1: none */
    uint64_t timeout_seconds;   /* of entries and attributes */
    uint32_t timeout_nanoseconds;
    bool use_no_open;
    /* negotiated by INIT */
    uint32_t minor;             /* 0: no INIT yet */
    bool can_expire, no_open, no_opendir;
    struct tree tree;
    struct slow slow;
    struct pool pool;
    int wake_fd;                /* eventfd: the thread in serve() has something to look at */
    atomic_bool stopping;
    atomic_bool gone;           /* the device has ended: nothing can be answered any more */
    atomic_int telling;         /* threads in notify.c; they need somebody to answer clients */
    atomic_int failure;         /* errno that ended serving, 0 for an unmount */
    atomic_ulong operations[COUNTERS];
    atomic_ulong python_calls, interrupts, discarded, negatives_sent, read_bytes, objects_opened,
        notifications, overloads;
    struct hooks *hooks;        /* the Python side */
};

/* requests.c */
enum outcome request_handle(struct worker *w, struct request *r, bool may_wait);
void request_answer_error(struct worker *w, struct request *r, int error);
struct request *request_make_slow(struct engine *e, const struct request *r);
void request_free_slow(struct engine *e, struct request *r);
bool request_parse(const char *packet, size_t length, struct request *r);
void requests_check_interrupted(struct engine *e);
void requests_resume(struct worker *w, struct request *waiters, int error);
bool requests_wait_in(struct engine *e, uint64_t directory_id);
int device_answer(struct engine *e, uint64_t unique, int error, struct iovec *parts, int count);

/* workers.c */
int workers_start(struct engine *e);
void workers_kick(struct engine *e);
void workers_submit(struct engine *e, struct request *r);
void engine_stop(struct engine *e, int failure);
bool engine_is_over(struct engine *e);
void engine_wake(struct engine *e);
bool worker_hand_on(struct worker *w, struct request *r);

/* notify.c */
void notify_tree_changed(struct engine *e);
void notify_wait(struct engine *e);

/* _engine.c: calls into Python, made without any lock. 0 or an errno, already logged. */
struct extent_answer {
    int fd;
    uint64_t offset, length, position;
};
void hook_thread_ends(struct worker *w);
int hook_list(struct worker *w, const char *path, size_t length, struct listing *rows);
int hook_root(struct worker *w, struct node **row);
int hook_open_extent(struct worker *w, const char *path, size_t length, int kind,
                     const char *content, size_t content_length, uint64_t size, uint64_t offset,
                     struct extent_answer *answer);
int hook_get_xattr(struct worker *w, const char *path, size_t length, const char *name,
                   char **value, size_t *value_length);
int hook_list_xattrs(struct worker *w, const char *path, size_t length, char **value,
                     size_t *value_length);
int hook_statfs(struct worker *w, struct fuse_kstatfs *st);
void hook_log(struct worker *w, const char *path, size_t length, const char *message);

#define COUNT(e, what) atomic_fetch_add_explicit(&(e)->what, 1, memory_order_relaxed)

#endif
