#include <Python.h>
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_cuts", NULL, -1, NULL, NULL, NULL, NULL, NULL};
PyMODINIT_FUNC PyInit__cuts(void) { return PyModule_Create(&module); }
