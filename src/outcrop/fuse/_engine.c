/* outcrop.fuse._engine: the Python type around the engine, and every call the engine makes into
 * Python. What the engine is and how its parts fit: csrc/engine.h.
 *
 * Rows come from catalogs that somebody else wrote: every type, length and range is checked here,
 * and one bad row makes the whole directory unreadable (EIO), with the reason in the log.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "csrc/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

/* The bound methods of the view, and engine.py's error handler. */
struct hooks {
    PyObject *root, *list_directory, *open_extent, *list_xattrs, *get_xattr, *statfs;
    PyObject *report;           /* report(operation, path, exception) -> errno */
    PyObject *log;              /* log(path, message) */
    PyObject *stopping;         /* stopping(): serving ends, calls under way should come back */
    /* What serve() raises: an exception that is no Exception (KeyboardInterrupt, SystemExit). */
    PyObject *raised;
};

typedef struct {
    PyObject_HEAD
    struct engine engine;
    struct hooks hooks;
    bool is_ready, is_serving;
} Core;

/* ---- entering and leaving Python -------------------------------------------------------------- */

/* One thread state for the life of a thread: a new one for each call would lose threading.local,
 * and with it a SQLite connection per directory. PyGILState makes the first, so that callbacks in
 * other extensions find it by themselves. */
static void enter(struct worker *w)
{
    COUNT(w->engine, python_calls);
    if (w->python) {
        PyEval_RestoreThread(w->python);
    } else {
        PyGILState_Ensure();
        w->python = PyThreadState_Get();
    }
}

static void leave(struct worker *w)
{
    w->python = PyEval_SaveThread();
}

void hook_thread_ends(struct worker *w)
{
    if (w->python) {
        PyEval_RestoreThread(w->python);
        w->python = NULL;
        PyGILState_Release(PyGILState_UNLOCKED);
    }
}

/* ---- exceptions -> errno ---------------------------------------------------------------------- */

static PyObject *path_object(const char *path, size_t length)
{
    return PyBytes_FromStringAndSize(path, (Py_ssize_t)length);
}

static PyObject *take_exception(void)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (value && traceback)
        PyException_SetTraceback(value, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
}

/* Somebody wants the process to end: serve() raises it in the thread that can act on it. */
static void keep_for_serve(struct engine *e, PyObject *exception)
{
    if (e->hooks->raised)
        return;
    e->hooks->raised = Py_NewRef(exception);
    engine_stop(e, 0);
}

/* What the kernel is told about the exception that is set; clears it. */
static int report(struct worker *w, const char *operation, const char *path, size_t length)
{
    struct hooks *h = w->engine->hooks;
    PyObject *exception = take_exception();
    if (!exception)
        return EIO;
    if (!PyObject_TypeCheck(exception, (PyTypeObject *)PyExc_Exception))
        keep_for_serve(w->engine, exception);
    PyObject *answer = PyObject_CallFunction(h->report, "sNO", operation,
                                             path_object(path, length), exception);
    long error = answer ? PyLong_AsLong(answer) : -1;
    Py_XDECREF(answer);
    Py_DECREF(exception);
    if (PyErr_Occurred())
        PyErr_WriteUnraisable(h->report);
    /* The kernel refuses others; ENOSYS would switch the operation off for the whole mount. */
    return error > 0 && error < 512 && error != ENOSYS ? (int)error : EIO;
}

void hook_log(struct worker *w, const char *path, size_t length, const char *message)
{
    enter(w);
    PyObject *done = PyObject_CallFunction(w->engine->hooks->log, "Ns", path_object(path, length),
                                           message);
    if (!done)
        PyErr_WriteUnraisable(w->engine->hooks->log);
    Py_XDECREF(done);
    leave(w);
}

/* ---- rows -> nodes ---------------------------------------------------------------------------- */

/* The columns of view.Row. */
enum { NAME, INO, MODE, NLINK, UID, GID, SIZE, RDEV, MTIME, MTIME_NS, TARGET, KIND, CONTENT, BITS,
       COLUMNS };
static const char *const column_names[COLUMNS] = {
    "name", "ino", "mode", "nlink", "uid", "gid", "size", "rdev", "mtime", "mtime_ns", "target",
    "kind", "content", "bits"};

static bool get_unsigned(PyObject *row, int column, uint64_t limit, uint64_t *to)
{
    PyObject *item = PyTuple_GET_ITEM(row, column);
    if (!PyLong_Check(item)) {
        PyErr_Format(PyExc_TypeError, "%s is %s, not int", column_names[column],
                     Py_TYPE(item)->tp_name);
        return false;
    }
    *to = PyLong_AsUnsignedLongLong(item);
    if ((*to == (uint64_t)-1 && PyErr_Occurred()) || *to > limit) {
        PyErr_Clear();
        PyErr_Format(PyExc_ValueError, "%s is out of range: %R", column_names[column], item);
        return false;
    }
    return true;
}

/* Bytes without NULs, or None where that is allowed (*data = NULL). */
static bool get_bytes(PyObject *row, int column, size_t limit, const char **data, size_t *length)
{
    PyObject *item = PyTuple_GET_ITEM(row, column);
    *data = NULL;
    *length = 0;
    if (item == Py_None && column != NAME)
        return true;
    if (!PyBytes_Check(item)) {
        PyErr_Format(PyExc_TypeError, "%s is %s, not bytes", column_names[column],
                     Py_TYPE(item)->tp_name);
        return false;
    }
    *data = PyBytes_AS_STRING(item);
    *length = (size_t)PyBytes_GET_SIZE(item);
    if (*length > limit) {
        PyErr_Format(PyExc_ValueError, "%s has %zu bytes, at most %zu are possible",
                     column_names[column], *length, limit);
        return false;
    }
    return true;
}

/* A name that the kernel would take for something else, or that leads out of the directory. */
static bool check_name(const char *name, size_t length)
{
    const char *why = NULL;
    if (length == 0)
        why = "is empty";
    else if (memchr(name, '\0', length))
        why = "contains a NUL";
    else if (memchr(name, '/', length))
        why = "contains a slash";
    else if (name[0] == '.' && (length == 1 || (length == 2 && name[1] == '.')))
        why = "is one of the directory's own";
    if (why)
        PyErr_Format(PyExc_ValueError, "the name %s", why);
    return !why;
}

/* The bits above KIND_MASK are the view's own and come back to it in open_extent. */
static bool check_kind(uint64_t kind)
{
    if (kind == OPAQUE || ((kind & KIND_MASK) != OPAQUE && (kind & KIND_MASK) <= OBJECT_SHAKE128))
        return true;
    PyErr_Format(PyExc_ValueError, "kind is not known: %d", (int)kind);
    return false;
}

/* What follows the name in a node: the target of a symlink, the content of a file. */
static bool get_tail(PyObject *row, unsigned mode, uint64_t kind, uint64_t size, const char **data,
                     size_t *length)
{
    *data = NULL;
    *length = 0;
    if (S_ISLNK(mode)) {
        if (!get_bytes(row, TARGET, TARGET_LIMIT, data, length))
            return false;
        if (!*length || memchr(*data, '\0', *length))
            PyErr_SetString(PyExc_ValueError, "the symlink target is empty or contains a NUL");
    } else if (S_ISREG(mode)) {
        if (!get_bytes(row, CONTENT, CONTENT_LIMIT, data, length))
            return false;
        if (kind != OPAQUE && *length != DIGEST_SIZE && (*length || size))
            PyErr_Format(PyExc_ValueError, "a digest of %zu bytes", *length);
        else if (!*data && size)
            PyErr_SetString(PyExc_ValueError, "a file with a size but no content");
    }
    return !PyErr_Occurred();
}

static bool is_file_type(uint64_t mode)
{
    return S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode) || S_ISCHR(mode) || S_ISBLK(mode) ||
           S_ISFIFO(mode) || S_ISSOCK(mode);
}

/* One row as a node, or NULL with an exception set. `is_root`: the name must be empty. */
static struct node *node_from_row(PyObject *row, bool is_root)
{
    if (!PyTuple_Check(row) || PyTuple_GET_SIZE(row) != COLUMNS) {
        PyErr_Format(PyExc_TypeError, "a row is a tuple of %d, not %.100R", COLUMNS, row);
        return NULL;
    }
    const char *name, *tail;
    size_t name_length, tail_length;
    uint64_t ino, mode, nlink, uid, gid, size, rdev, kind, bits, mtime_ns = 0;
    if (!get_bytes(row, NAME, is_root ? 0 : NAME_LIMIT, &name, &name_length) ||
        (!is_root && !check_name(name, name_length)) ||
        !get_unsigned(row, INO, UINT64_MAX, &ino) || !get_unsigned(row, MODE, 0xffff, &mode) ||
        !get_unsigned(row, NLINK, UINT32_MAX, &nlink) ||
        !get_unsigned(row, UID, UINT32_MAX, &uid) || !get_unsigned(row, GID, UINT32_MAX, &gid) ||
        !get_unsigned(row, SIZE, INT64_MAX, &size) ||
        !get_unsigned(row, RDEV, UINT32_MAX, &rdev) ||
        !get_unsigned(row, KIND, UINT8_MAX, &kind) || !check_kind(kind) ||
        !get_unsigned(row, BITS, 0xff, &bits))
        return NULL;
    if (PyTuple_GET_ITEM(row, MTIME_NS) != Py_None &&
        !get_unsigned(row, MTIME_NS, 999999999, &mtime_ns))
        return NULL;
    PyObject *when = PyTuple_GET_ITEM(row, MTIME);
    long long mtime = PyLong_Check(when) ? PyLong_AsLongLong(when) : -1;
    if (!PyLong_Check(when) || (mtime == -1 && PyErr_Occurred())) {
        PyErr_Clear();
        PyErr_Format(PyExc_ValueError, "mtime is no time: %.100R", when);
        return NULL;
    }
    if (!is_file_type(mode) || (is_root && !S_ISDIR(mode))) {
        PyErr_Format(PyExc_ValueError, "mode %x is of no known file type", (unsigned)mode);
        return NULL;
    }
    if (ino == 0) {             /* C libraries take such an entry for a deleted one */
        PyErr_SetString(PyExc_ValueError, "inode 0");
        return NULL;
    }
    if (!get_tail(row, (unsigned)mode, kind, size, &tail, &tail_length))
        return NULL;
    struct node *n = node_new(name, name_length, tail, tail_length);
    if (!n) {
        PyErr_NoMemory();
        return NULL;
    }
    n->ino = ino;
    n->mode = (uint16_t)mode;
    n->nlink = (uint32_t)nlink;
    n->uid = (uint32_t)uid;
    n->gid = (uint32_t)gid;
    n->size = size;
    n->rdev = S_ISCHR(mode) || S_ISBLK(mode) ? (uint32_t)rdev : 0;
    n->mtime = mtime;
    n->mtime_ns = (uint32_t)mtime_ns;
    n->kind = (uint8_t)kind;
    n->bits = (uint8_t)bits;
    if (S_ISLNK(mode)) {
        n->target_length = (uint16_t)tail_length;
        n->size = tail_length;
    } else {
        n->content_length = (uint16_t)tail_length;
    }
    return n;
}

/* Say which row of how many it was. */
static void blame_row(Py_ssize_t index, PyObject *row)
{
    PyObject *cause = take_exception();
    PyObject *name = PyTuple_Check(row) && PyTuple_GET_SIZE(row) ? PyTuple_GET_ITEM(row, 0) : row;
    PyErr_Format(PyExc_ValueError, "row %zd (%.100R): %S", index, name, cause ? cause : Py_None);
    Py_XDECREF(cause);
}

static bool convert_rows(struct tree *t, PyObject *answer, struct listing *rows)
{
    PyObject *all = PySequence_Fast(answer, "list_directory must return a sequence");
    if (!all)
        return false;
    Py_ssize_t count = PySequence_Fast_GET_SIZE(all);
    if ((uint64_t)count > UINT32_MAX / 2 ||
        !(rows->entries = malloc(((size_t)count + 1) * sizeof *rows->entries))) {
        Py_DECREF(all);
        PyErr_NoMemory();
        return false;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *row = PySequence_Fast_GET_ITEM(all, i);
        struct node *n = node_from_row(row, false);
        if (!n) {
            blame_row(i, row);
            break;
        }
        rows->entries[i].node = n;
        rows->entries[i].key = tree_name_key(t, node_name(n), n->name_length);
        rows->count++;
    }
    const struct node *twice = PyErr_Occurred() ? NULL : listing_sort(rows);
    if (twice) {
        PyObject *name = PyBytes_FromStringAndSize(node_name(twice), twice->name_length);
        PyErr_Format(PyExc_ValueError, "two entries are named %R", name ? name : Py_None);
        Py_XDECREF(name);
    }
    Py_DECREF(all);
    if (!PyErr_Occurred())
        return true;
    listing_free(rows);
    return false;
}

/* ---- the hooks -------------------------------------------------------------------------------- */

int hook_list(struct worker *w, const char *path, size_t length, struct listing *rows)
{
    int error = 0;
    enter(w);
    PyObject *answer = PyObject_CallFunction(w->engine->hooks->list_directory, "N",
                                             path_object(path, length));
    if (!answer || !convert_rows(&w->engine->tree, answer, rows))
        error = report(w, "list", path, length);
    Py_XDECREF(answer);
    leave(w);
    return error;
}

int hook_root(struct worker *w, struct node **row)
{
    int error = 0;
    enter(w);
    PyObject *answer = PyObject_CallNoArgs(w->engine->hooks->root);
    *row = answer ? node_from_row(answer, true) : NULL;
    if (!*row)
        error = report(w, "stat", "", 0);
    Py_XDECREF(answer);
    leave(w);
    return error;
}

static bool get_answer_number(PyObject *tuple, Py_ssize_t index, uint64_t *to)
{
    PyObject *item = PyTuple_GET_ITEM(tuple, index);
    long long value = PyLong_Check(item) ? PyLong_AsLongLong(item) : -1;
    if (value < 0) {
        PyErr_Clear();
        PyErr_Format(PyExc_ValueError, "item %zd of the answer is not a number from 0 on: %.100R",
                     index, tuple);
        return false;
    }
    *to = (uint64_t)value;
    return true;
}

/* The fd is ours as soon as we know it, also when the rest of the answer is wrong. */
static bool convert_extent(PyObject *answer, uint64_t offset, struct extent_answer *to)
{
    uint64_t fd;
    if (!PyTuple_Check(answer) || PyTuple_GET_SIZE(answer) != 4) {
        PyErr_Format(PyExc_TypeError, "open_extent returned %.100R", answer);
        return false;
    }
    if (!get_answer_number(answer, 0, &fd))
        return false;
    if (fd > INT32_MAX) {
        PyErr_Format(PyExc_ValueError, "open_extent returned %R: not a descriptor", answer);
        return false;
    }
    to->fd = (int)fd;
    struct stat st;
    if (!get_answer_number(answer, 1, &to->offset) || !get_answer_number(answer, 2, &to->length) ||
        !get_answer_number(answer, 3, &to->position))
        ;
    else if (offset < to->offset || offset - to->offset >= to->length)
        PyErr_Format(PyExc_ValueError, "open_extent returned %R, which does not cover %llu",
                     answer, (unsigned long long)offset);
    else if (fstat(to->fd, &st) < 0 || !S_ISREG(st.st_mode))
        PyErr_Format(PyExc_ValueError, "open_extent returned %R: not a regular file", answer);
    else
        return true;
    close(to->fd);
    return false;
}

int hook_open_extent(struct worker *w, const char *path, size_t length, int kind,
                     const char *content, size_t content_length, uint64_t size, uint64_t offset,
                     struct extent_answer *to)
{
    int error = 0;
    enter(w);
    PyObject *answer = PyObject_CallFunction(
        w->engine->hooks->open_extent, "Niy#KK", path_object(path, length), kind, content,
        (Py_ssize_t)content_length, (unsigned long long)size, (unsigned long long)offset);
    if (!answer || !convert_extent(answer, offset, to))
        error = report(w, "read", path, length);
    Py_XDECREF(answer);
    leave(w);
    return error;
}

static char *copy_bytes(const char *data, size_t length)
{
    char *copy = malloc(length + 1);
    if (copy)
        memcpy(copy, data, length);
    else
        PyErr_NoMemory();
    return copy;
}

int hook_get_xattr(struct worker *w, const char *path, size_t length, const char *name,
                   char **value, size_t *value_length)
{
    int error = 0;
    enter(w);
    PyObject *answer = PyObject_CallFunction(w->engine->hooks->get_xattr, "Ny",
                                             path_object(path, length), name);
    if (answer && !PyBytes_Check(answer))
        PyErr_Format(PyExc_TypeError, "get_xattr returned %.100R, not bytes", answer);
    if (answer && !PyErr_Occurred()) {
        *value_length = (size_t)PyBytes_GET_SIZE(answer);
        *value = copy_bytes(PyBytes_AS_STRING(answer), *value_length);
    }
    if (!*value)
        error = report(w, "getxattr", path, length);
    Py_XDECREF(answer);
    leave(w);
    return error;
}

/* Names as listxattr(2) wants them: each followed by a NUL. */
static char *join_names(PyObject *answer, size_t *length)
{
    char *joined = NULL;
    PyObject *all = PySequence_Fast(answer, "list_xattrs must return a sequence");
    if (!all)
        return NULL;
    size_t used = 0;
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(all) && used <= XATTR_LIMIT; i++) {
        PyObject *name = PySequence_Fast_GET_ITEM(all, i);
        if (!PyBytes_Check(name) || !PyBytes_GET_SIZE(name) ||
            memchr(PyBytes_AS_STRING(name), '\0', (size_t)PyBytes_GET_SIZE(name))) {
            PyErr_Format(PyExc_ValueError, "no name of an attribute: %.100R", name);
            break;
        }
        size_t size = (size_t)PyBytes_GET_SIZE(name) + 1;
        char *longer = realloc(joined, used + size);
        if (!longer) {
            PyErr_NoMemory();
            break;
        }
        joined = longer;
        memcpy(joined + used, PyBytes_AS_STRING(name), size);
        used += size;
    }
    Py_DECREF(all);
    if (PyErr_Occurred()) {
        free(joined);
        return NULL;
    }
    *length = used;
    return joined ? joined : copy_bytes("", 0);
}

int hook_list_xattrs(struct worker *w, const char *path, size_t length, char **value,
                     size_t *value_length)
{
    int error = 0;
    enter(w);
    PyObject *answer = PyObject_CallFunction(w->engine->hooks->list_xattrs, "N",
                                             path_object(path, length));
    *value = answer ? join_names(answer, value_length) : NULL;
    if (!*value)
        error = report(w, "listxattr", path, length);
    Py_XDECREF(answer);
    leave(w);
    return error;
}

static bool convert_statfs(PyObject *answer, struct fuse_kstatfs *st)
{
    uint64_t block_size, name_max;
    if (!PyTuple_Check(answer) || PyTuple_GET_SIZE(answer) != 6) {
        PyErr_Format(PyExc_TypeError, "statfs returned %.100R", answer);
        return false;
    }
    if (!get_answer_number(answer, 0, &block_size) || !get_answer_number(answer, 1, &st->blocks) ||
        !get_answer_number(answer, 2, &st->bfree) || !get_answer_number(answer, 3, &st->files) ||
        !get_answer_number(answer, 4, &st->ffree) || !get_answer_number(answer, 5, &name_max))
        return false;
    st->bavail = st->bfree;
    st->bsize = st->frsize = (uint32_t)block_size;
    st->namelen = (uint32_t)name_max;
    return true;
}

int hook_statfs(struct worker *w, struct fuse_kstatfs *st)
{
    int error = 0;
    enter(w);
    PyObject *answer = PyObject_CallNoArgs(w->engine->hooks->statfs);
    if (!answer || !convert_statfs(answer, st))
        error = report(w, "statfs", "", 0);
    Py_XDECREF(answer);
    leave(w);
    return error;
}

/* ---- the type --------------------------------------------------------------------------------- */

static int set_up_engine(struct engine *e, struct hooks *hooks)
{
    pthread_condattr_t monotonic;
    e->hooks = hooks;
    e->slow.ends.newer = e->slow.ends.older = &e->slow.ends;
    e->pool.ends.newer = e->pool.ends.older = &e->pool.ends;
    pthread_mutex_init(&e->slow.lock, NULL);
    pthread_mutex_init(&e->pool.lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&e->pool.wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    e->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return e->wake_fd < 0 ? -1 : 0;
}

static int core_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    Core *c = (Core *)self;
    struct engine *e = &c->engine;
    struct hooks *h = &c->hooks;
    static char *names[] = {
        "device", "root", "list_directory", "open_extent", "list_xattrs", "get_xattr", "statfs",
        "report", "log", "stopping", "object_directory_fd", "timeout_ns", "threads", "max_threads", "max_rows",
        "max_extents", "use_no_open", NULL};
    PyObject *hooks[9];
    long long timeout_ns;
    Py_ssize_t threads, max_threads, max_rows, max_extents;
    int device, object_directory, use_no_open;
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "iOOOOOOOOO$iLnnnnp", names, &device, &hooks[0], &hooks[1], &hooks[2],
            &hooks[3], &hooks[4], &hooks[5], &hooks[6], &hooks[7], &hooks[8], &object_directory,
            &timeout_ns, &threads, &max_threads, &max_rows, &max_extents, &use_no_open))
        return -1;
    if (c->is_ready || timeout_ns < 0 || threads < 1 || max_threads < threads || max_rows < 1 ||
        max_extents < 1) {
        PyErr_SetString(PyExc_ValueError, "a limit is out of range");
        return -1;
    }
    if (tree_init(&e->tree, (size_t)max_rows, (size_t)max_extents) < 0 || set_up_engine(e, h) < 0) {
        tree_destroy(&e->tree);
        PyErr_NoMemory();
        return -1;
    }
    h->root = Py_NewRef(hooks[0]);
    h->list_directory = Py_NewRef(hooks[1]);
    h->open_extent = Py_NewRef(hooks[2]);
    h->list_xattrs = Py_NewRef(hooks[3]);
    h->get_xattr = Py_NewRef(hooks[4]);
    h->statfs = Py_NewRef(hooks[5]);
    h->report = Py_NewRef(hooks[6]);
    h->log = Py_NewRef(hooks[7]);
    h->stopping = Py_NewRef(hooks[8]);
    e->device = device;
    e->object_directory = object_directory;
    e->timeout_seconds = (uint64_t)(timeout_ns / 1000000000);
    e->timeout_nanoseconds = (uint32_t)(timeout_ns % 1000000000);
    e->use_no_open = use_no_open;
    e->pool.base = (size_t)threads;
    e->pool.limit = (size_t)max_threads;
    c->is_ready = true;
    return 0;
}

static size_t count_threads(struct engine *e)
{
    pthread_mutex_lock(&e->pool.lock);
    size_t threads = e->pool.threads;
    pthread_mutex_unlock(&e->pool.lock);
    return threads;
}

/* Sleep until there is something to do here: a signal, the last thread's end, an interrupted
 * request to look after. One look a second catches a signal that Python took in another thread. */
static void wait_for_news(struct engine *e, bool stopping)
{
    struct pollfd news = {e->wake_fd, POLLIN, 0};
    pthread_mutex_lock(&e->slow.lock);
    bool watching = e->slow.interrupted > 0;
    pthread_mutex_unlock(&e->slow.lock);
    poll(&news, 1, stopping ? 10 : watching ? 100 : 1000);
    uint64_t ignored;
    if (read(e->wake_fd, &ignored, sizeof ignored) < 0)
        return;                 /* a timeout or a signal */
}

/* Once, before the wait for calls into the view that are under way. */
static void tell_stopping(struct hooks *h)
{
    PyObject *done = PyObject_CallNoArgs(h->stopping);
    if (!done)
        PyErr_WriteUnraisable(h->stopping);
    Py_XDECREF(done);
}

/* Serve until all threads have left. An exception from a signal handler stops serving; a second one
 * while threads are stuck in the view stops the waiting for them. Returns whether all have left. */
static bool serve_loop(struct engine *e)
{
    PyObject *first = NULL;
    bool told = false;
    size_t threads;
    while ((threads = count_threads(e))) {
        bool stopping = atomic_load(&e->stopping);
        if (stopping && !told) {
            told = true;
            tell_stopping(e->hooks);
        }
        Py_BEGIN_ALLOW_THREADS
        if (stopping)
            workers_kick(e);
        wait_for_news(e, stopping);
        requests_check_interrupted(e);
        Py_END_ALLOW_THREADS
        if (PyErr_CheckSignals() < 0) {
            if (first)
                break;
            first = take_exception();
            engine_stop(e, 0);
        }
    }
    if (first && !PyErr_Occurred())
        PyErr_SetObject((PyObject *)Py_TYPE(first), first);
    Py_XDECREF(first);
    return threads == 0;
}

static PyObject *core_serve(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Core *c = (Core *)self;
    struct engine *e = &c->engine;
    if (!c->is_ready || c->is_serving || atomic_load(&e->stopping) || e->device < 0) {
        PyErr_SetString(PyExc_RuntimeError, "an engine serves once");
        return NULL;
    }
    c->is_serving = true;
    Py_INCREF(self);
    int error = workers_start(e);
    if (error || serve_loop(e)) {
        c->is_serving = false;
        Py_DECREF(self);        /* else threads are left that need it, for as long as they live */
    }
    atomic_store(&e->stopping, true);
    if (!error)
        error = atomic_load(&e->failure);
    if (!PyErr_Occurred() && c->hooks.raised)
        PyErr_SetObject((PyObject *)Py_TYPE(c->hooks.raised), c->hooks.raised);
    if (!PyErr_Occurred() && error) {
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
    }
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *core_stop(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Core *c = (Core *)self;
    if (c->is_ready)
        engine_stop(&c->engine, 0);
    Py_RETURN_NONE;
}

static PyObject *core_tree_changed(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Core *c = (Core *)self;
    if (!c->is_ready || atomic_load(&c->engine.stopping))
        Py_RETURN_NONE;
    atomic_fetch_add(&c->engine.telling, 1);    /* with the GIL, as close() looks at both */
    Py_BEGIN_ALLOW_THREADS
    notify_tree_changed(&c->engine);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

/* Closing the device ends the connection, if nobody else has it open. */
static PyObject *core_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Core *c = (Core *)self;
    if (c->is_serving) {
        PyErr_SetString(PyExc_RuntimeError, "the engine is serving: stop() it first");
        return NULL;
    }
    if (c->is_ready && c->engine.device >= 0) {
        engine_stop(&c->engine, 0);     /* no tree_changed() begins from now on */
        Py_BEGIN_ALLOW_THREADS
        notify_wait(&c->engine);
        Py_END_ALLOW_THREADS
        if (c->engine.device >= 0)      /* another thread may have closed it meanwhile */
            close(c->engine.device);
        c->engine.device = -1;
    }
    Py_RETURN_NONE;
}

static bool put(PyObject *to, const char *name, uint64_t value)
{
    PyObject *number = PyLong_FromUnsignedLongLong(value);
    int failed = number ? PyDict_SetItemString(to, name, number) : -1;
    Py_XDECREF(number);
    return failed == 0;
}

static bool put_operations(PyObject *to, struct engine *e)
{
    static const struct { uint32_t opcode; const char *name; } named[] = {
        {OTHER_OPERATION, "requests_other"}, {FUSE_LOOKUP, "requests_lookup"},
        {FUSE_FORGET, "requests_forget"}, {FUSE_BATCH_FORGET, "requests_batch_forget"},
        {FUSE_GETATTR, "requests_getattr"}, {FUSE_READLINK, "requests_readlink"},
        {FUSE_OPEN, "requests_open"}, {FUSE_READ, "requests_read"},
        {FUSE_STATFS, "requests_statfs"}, {FUSE_GETXATTR, "requests_getxattr"},
        {FUSE_LISTXATTR, "requests_listxattr"}, {FUSE_OPENDIR, "requests_opendir"},
        {FUSE_READDIR, "requests_readdir"}, {FUSE_READDIRPLUS, "requests_readdirplus"},
        {FUSE_INTERRUPT, "requests_interrupt"}, {FUSE_ACCESS, "requests_access"},
        {FUSE_IOCTL, "requests_ioctl"},
    };
    uint64_t total = 0;
    for (size_t i = 0; i < COUNTERS; i++)
        total += atomic_load(&e->operations[i]);
    for (size_t i = 0; i < sizeof named / sizeof *named; i++)
        if (!put(to, named[i].name, atomic_load(&e->operations[named[i].opcode])))
            return false;
    return put(to, "requests", total);
}

static PyObject *core_statistics(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Core *c = (Core *)self;
    struct engine *e = &c->engine;
    PyObject *all = PyDict_New();
    if (!all || !c->is_ready)
        return all;
    tree_lock(&e->tree);
    size_t nodes = e->tree.nodes, rows = e->tree.rows, known = e->tree.known;
    size_t extents = e->tree.extents, negatives = e->tree.negative_count;
    uint64_t generation = e->tree.generation;
    tree_unlock(&e->tree);
    if (put_operations(all, e) && put(all, "python_calls", atomic_load(&e->python_calls)) &&
        put(all, "interrupted", atomic_load(&e->interrupts)) &&
        put(all, "answers_discarded", atomic_load(&e->discarded)) &&
        put(all, "overloads", atomic_load(&e->overloads)) &&
        put(all, "notifications", atomic_load(&e->notifications)) &&
        put(all, "objects_opened", atomic_load(&e->objects_opened)) &&
        put(all, "read_bytes", atomic_load(&e->read_bytes)) && put(all, "nodes", nodes) &&
        put(all, "rows", rows) && put(all, "kernel_nodes", known) &&
        put(all, "open_extents", extents) && put(all, "negative_names", negatives) &&
        put(all, "negative_answers", atomic_load(&e->negatives_sent)) &&
        put(all, "tree_changes", generation - 1) && put(all, "threads", count_threads(e)) &&
        put(all, "protocol_minor", e->minor))
        return all;
    Py_DECREF(all);
    return NULL;
}

static int core_traverse(PyObject *self, visitproc visit, void *arg)
{
    struct hooks *h = &((Core *)self)->hooks;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(h->root);
    Py_VISIT(h->list_directory);
    Py_VISIT(h->open_extent);
    Py_VISIT(h->list_xattrs);
    Py_VISIT(h->get_xattr);
    Py_VISIT(h->statfs);
    Py_VISIT(h->report);
    Py_VISIT(h->log);
    Py_VISIT(h->stopping);
    Py_VISIT(h->raised);
    return 0;
}

static int core_clear(PyObject *self)
{
    struct hooks *h = &((Core *)self)->hooks;
    Py_CLEAR(h->root);
    Py_CLEAR(h->list_directory);
    Py_CLEAR(h->open_extent);
    Py_CLEAR(h->list_xattrs);
    Py_CLEAR(h->get_xattr);
    Py_CLEAR(h->statfs);
    Py_CLEAR(h->report);
    Py_CLEAR(h->log);
    Py_CLEAR(h->stopping);
    Py_CLEAR(h->raised);
    return 0;
}

/* serve() holds a reference, and returns when the last thread has left: no thread is here. */
static void core_dealloc(PyObject *self)
{
    Core *c = (Core *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    core_clear(self);
    if (c->is_ready) {
        struct engine *e = &c->engine;
        tree_destroy(&e->tree);
        if (e->device >= 0)
            close(e->device);
        close(e->wake_fd);
        pthread_mutex_destroy(&e->slow.lock);
        pthread_mutex_destroy(&e->pool.lock);
        pthread_cond_destroy(&e->pool.wake);
    }
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef core_methods[] = {
    {"serve", core_serve, METH_NOARGS, "Answer the kernel until unmounted, aborted or stopped."},
    {"stop", core_stop, METH_NOARGS, "Make serve() return."},
    {"tree_changed", core_tree_changed, METH_NOARGS, "The view shows another tree now."},
    {"statistics", core_statistics, METH_NOARGS, "Counters and sizes by name."},
    {"close", core_close, METH_NOARGS, "Close the device."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot core_slots[] = {
    {Py_tp_doc, "The engine in C; use outcrop.fuse.engine.Engine."},
    {Py_tp_init, core_init},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_dealloc, core_dealloc},
    {Py_tp_traverse, core_traverse},
    {Py_tp_clear, core_clear},
    {Py_tp_methods, core_methods},
    {0, NULL},
};

static PyType_Spec core_spec = {
    .name = "outcrop.fuse._engine.Core",
    .basicsize = sizeof(Core),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = core_slots,
};

static int module_exec(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &core_spec, NULL);
    if (!type)
        return -1;
    int failed = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return failed;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
    {0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "outcrop.fuse._engine",
    .m_doc = "The FUSE protocol, answered in C.",
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__engine(void)
{
    return PyModuleDef_Init(&module);
}
