/* Cut marks of the xor32 rolling checksum (docs/reference/formats/chunking.md).
 *
 * A Scanner walks one file in blocks of any size. Between blocks it keeps three numbers: where it
 * is, where the current chunk began, and the checksum. The checksum x of position p is
 *
 *     x(p) = (x(p-1) << 1) ^ byte[p]      (32 bits)
 *
 * so only the last 32 bytes have a say in it. Three stretches of a chunk follow from that:
 *
 *     [start, start + min - 32)    skipped, not even looked at
 *     [.., start + min)            fed to the checksum, not tested
 *     [.., start + max)            fed and tested; the first hit begins the next chunk
 *
 * and at start + max, if that byte exists, the next chunk begins whatever the checksum says.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>

#define WINDOW 32

typedef struct {
    PyObject_HEAD
    uint64_t minimum, maximum;
    uint32_t threshold;
    uint64_t position; /* of the next byte to come, in the file */
    uint64_t start;    /* of the current chunk */
    uint32_t checksum;
    int busy; /* some thread is inside feed(), without the interpreter lock */
} Scanner;

typedef struct {
    uint64_t *marks;
    size_t count, capacity;
} Marks;

static int
append(Marks *found, uint64_t mark)
{
    if (found->count == found->capacity) {
        size_t capacity = found->capacity ? 2 * found->capacity : 64;
        uint64_t *grown = realloc(found->marks, capacity * sizeof *grown);
        if (grown == NULL)
            return -1;
        found->marks = grown;
        found->capacity = capacity;
    }
    found->marks[found->count++] = mark;
    return 0;
}

static inline uint64_t
smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* The original computes |(int32)x - INT_MAX| < threshold with wrapping int32 arithmetic. With
 * d = x - INT_MAX (mod 2^32) that is: d in (-threshold, threshold), or d == INT_MIN, whose
 * absolute value wraps to itself and is smaller than any threshold. */
static inline int
is_cut(uint32_t x, uint32_t threshold)
{
    return x - 0x7fffffffu + (threshold - 1) < 2 * threshold - 1 || x == 0xffffffffu;
}

/* Walks `length` bytes on; -1 if memory ran out. Needs no interpreter lock. */
static int
scan(Scanner *self, const unsigned char *data, size_t length, Marks *found)
{
    const uint64_t begin = self->position; /* of data[0], in the file */
    const uint64_t end = begin + length;
    const uint32_t threshold = self->threshold;
    uint64_t p = begin;
    uint32_t x = self->checksum;

    while (p < end) {
        uint64_t start = self->start, stop;

        if (p < start + self->minimum - WINDOW) {
            p = smaller(start + self->minimum - WINDOW, end);
            continue;
        }
        stop = smaller(start + self->minimum, end);
        for (; p < stop; p++)
            x = (x << 1) ^ data[p - begin];
        stop = smaller(start + self->maximum, end);
        for (; p < stop; p++) {
            x = (x << 1) ^ data[p - begin];
            if (is_cut(x, threshold))
                break;
        }
        if (p == end)
            break;
        /* Byte p exists, and either hit or is the first that has no room in this chunk. */
        if (append(found, p) < 0)
            return -1;
        self->start = p;
        x = 0;
    }
    self->position = end;
    self->checksum = x;
    return 0;
}

static PyObject *
list_of(const Marks *found)
{
    PyObject *list = PyList_New((Py_ssize_t)found->count);
    for (size_t i = 0; list != NULL && i < found->count; i++) {
        PyObject *mark = PyLong_FromUnsignedLongLong(found->marks[i]);
        if (mark == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, (Py_ssize_t)i, mark);
    }
    return list;
}

static PyObject *
Scanner_feed(PyObject *object, PyObject *block)
{
    Scanner *self = (Scanner *)object;
    Marks found = {NULL, 0, 0};
    PyObject *result = NULL;
    Py_buffer view;
    int status;

    if (self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "a Scanner is for one thread at a time");
        return NULL;
    }
    if (PyObject_GetBuffer(block, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    self->busy = 1;
    Py_BEGIN_ALLOW_THREADS
    status = scan(self, view.buf, (size_t)view.len, &found);
    Py_END_ALLOW_THREADS
    self->busy = 0;
    PyBuffer_Release(&view);
    if (status < 0)
        PyErr_NoMemory();
    else
        result = list_of(&found);
    free(found.marks);
    return result;
}

static PyObject *
Scanner_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    unsigned long long minimum, average, maximum;
    Scanner *self;

    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0) {
        PyErr_SetString(PyExc_TypeError, "Scanner takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "KKK:Scanner", &minimum, &average, &maximum))
        return NULL;
    if (minimum < WINDOW || minimum >= average || average >= maximum || maximum > 1ULL << 40) {
        PyErr_SetString(PyExc_ValueError, "32 <= minimum < average < maximum <= 2**40");
        return NULL;
    }
    self = (Scanner *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->minimum = minimum;
    self->maximum = maximum;
    self->threshold = (uint32_t)(0xffffffffull / average);
    return (PyObject *)self;
}

static void
Scanner_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyMethodDef Scanner_methods[] = {
    {"feed", Scanner_feed, METH_O,
     "feed(block, /)\n--\n\nScan the next bytes; return the cut marks found in them."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot Scanner_slots[] = {
    {Py_tp_doc, "Scanner(minimum, average, maximum, /)\n--\n\nCut marks of one file."},
    {Py_tp_new, Scanner_new},
    {Py_tp_dealloc, Scanner_dealloc},
    {Py_tp_methods, Scanner_methods},
    {0, NULL},
};

static PyType_Spec Scanner_spec = {
    .name = "outcrop.formats._cuts.Scanner",
    .basicsize = sizeof(Scanner),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = Scanner_slots,
};

static int
module_exec(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&Scanner_spec);
    int status;

    if (type == NULL)
        return -1;
    status = PyModule_AddObjectRef(module, "Scanner", type);
    Py_DECREF(type);
    return status;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
    {0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "outcrop.formats._cuts",
    .m_doc = "Cut marks of the xor32 rolling checksum.",
    .m_slots = module_slots,
};

PyMODINIT_FUNC
PyInit__cuts(void)
{
    return PyModuleDef_Init(&module);
}
