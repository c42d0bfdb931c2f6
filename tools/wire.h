/* wire.h - openpi's messages: msgpack with numpy arrays, as its websocket server and client exchange them.
 *
 * An array is a map of four: __ndarray__: true, data: bytes in C order, dtype: numpy's name ("<f4"), shape:
 * whole numbers; a numpy scalar one of three: __npgeneric__: true, data: the value, dtype. openpi's client
 * writes these keys as bytes; text is accepted as well.
 *
 * The reader takes nothing on trust: a count is compared with the bytes that remain before it is used, depth,
 * fields and names are limited, and nothing is allocated but lists of numbers, of at most WIRE_MAX_LIST each.
 */
#ifndef PV_TOOLS_WIRE_H
#define PV_TOOLS_WIRE_H

#include "base/status.h"

enum {
    WIRE_MAX_FIELDS = 64,
    WIRE_MAX_DEPTH = 8,  /* of maps and lists within each other */
    WIRE_MAX_KEY = 128,  /* bytes of a field's whole name */
    WIRE_MAX_LIST = 4096 /* numbers of a plain list */
};

/* ---- reading an observation ---- */

/* Fields point into the message, wherever that is (aligned or not); names, single numbers and lists lie here.
 */
typedef struct wire_request {
    pv_field field[WIRE_MAX_FIELDS];
    int n_fields;
    char key[WIRE_MAX_FIELDS][WIRE_MAX_KEY + 1];
    union {
        double f64;
        int64_t i64;
        uint8_t truth;
    } scalar[WIRE_MAX_FIELDS];
    void *owned[WIRE_MAX_FIELDS];
} wire_request;

/* One msgpack map, and nothing behind it, as a flat list of fields: maps within it are told by names with '/'
 * between. arrays            |u1 <i4 <i8 <f4 <f8 |b1 of up to 4 dims, none of them 0 numbers, truths   of no
 * dims, i64, f64 or bool text and bytes    text: valid UTF-8 without zero bytes lists of numbers  f64 of one
 * dim PV_E_ARG: not such a message; PV_E_SHAPE: an array whose dtype, shape and bytes do not fit; the field
 * is named. The fields are good until `bytes` go or wire_request_free is called, which a failed call needs
 * not. */
pv_status wire_read(const uint8_t *bytes, size_t n, wire_request *out);
void wire_request_free(wire_request *request);

/* ---- writing replies ---- */

/* Grows as it is written to. When memory is short it keeps that in mind, and wire_ok says so at the end. */
typedef struct wire_buffer {
    uint8_t *bytes; /* pv_free */
    size_t n, room;
    bool failed;
} wire_buffer;

void wire_map(wire_buffer *b, uint32_t n_pairs);
void wire_list(wire_buffer *b, uint32_t n);
void wire_text(wire_buffer *b, const char *text);
void wire_number(wire_buffer *b, double value); /* float64 */
void wire_integer(wire_buffer *b, uint64_t value);
void wire_truth(wire_buffer *b, bool value);
void wire_f64(wire_buffer *b, const double *x, int rows, int columns); /* ndarray [rows, columns] "<f8" */
void wire_f32(wire_buffer *b, const float *x, int rows, int columns);  /* ndarray [rows, columns] "<f4" */
void wire_reserve(wire_buffer *b, size_t n);                           /* n bytes left for others to fill */
pv_status wire_ok(const wire_buffer *b);

#endif
