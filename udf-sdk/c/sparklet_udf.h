/* Functions for sparklet in C or C++, compiled to WebAssembly (the columnar ABI, version 1; see ABI.md).
 *
 * Needs clang (or zig cc), no C library. One source file of a module defines SPARKLET_IMPLEMENTATION before the include:
 *
 *     #define SPARKLET_IMPLEMENTATION
 *     #include "sparklet_udf.h"
 *
 *     SPARKLET_SCALAR(shout, Utf8, Utf8) {                  // name, result, arguments; called for each row
 *         sparklet_bytes text = sparklet_get_bytes(in, 0, row);
 *         for (uint32_t at = 0; at < text.len; at++) { ... }
 *         sparklet_push_bytes(result, text);
 *         return 0;                                         // or sparklet_fail("why")
 *     }
 *
 *     clang --target=wasm32 -O3 -ffreestanding -nostdlib -Wl,--no-entry -Wl,--export-memory shout.c -o shout.wasm
 *
 * A NULL in an argument makes the result NULL, and whatever the function does for that row is ignored; SPARKLET_SCALAR_NULLS is for
 * functions that look at NULLs. SPARKLET_BATCH gives whole columns, for loops over numbers. See SPARKLET_AGGREGATE and SPARKLET_TABLE
 * further down. Types are written as in SQL's description of functions: Int64, Decimal128(12,2), List(Utf8), Timestamp(us) ...
 */
#ifndef SPARKLET_UDF_H
#define SPARKLET_UDF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- the structs of the ABI ---- */

enum {
    SPARKLET_BOOLEAN = 1,
    SPARKLET_INT8,
    SPARKLET_INT16,
    SPARKLET_INT32,
    SPARKLET_INT64,
    SPARKLET_UINT8,
    SPARKLET_UINT16,
    SPARKLET_UINT32,
    SPARKLET_UINT64,
    SPARKLET_FLOAT32,
    SPARKLET_FLOAT64,
    SPARKLET_UTF8,
    SPARKLET_BINARY,
    SPARKLET_DECIMAL128,
    SPARKLET_DATE32,
    SPARKLET_TIMESTAMP,
    SPARKLET_DURATION,
    SPARKLET_LIST = 20,
    SPARKLET_STRUCT = 21
};

typedef struct sparklet_col {
    uint32_t type, flags, null_count, validity, buf0, len0, buf1, len1, nchildren, children, p0, p1;
} sparklet_col;

typedef struct sparklet_batch {
    uint32_t rows, ncols, cols, flags;
} sparklet_batch;

typedef struct sparklet_bytes {
    const uint8_t *data;
    uint32_t len;
} sparklet_bytes;

/* Part of a list column: items `from` to before `to` of the column of items. */
typedef struct sparklet_range {
    const sparklet_col *items;
    uint32_t from, to;
} sparklet_range;

/* ---- memory ---- */

/* Memory of the module; the alignment is at most 64. NULL where there is none. Freed with the size it was asked for. */
void *sparklet_alloc(uint32_t size, uint32_t align);
void sparklet_free(void *at, uint32_t size, uint32_t align);

/* Memory that lasts until the next call, for results. */
void *sparklet_scratch(uint32_t size);

/* Ends the call with this message, which must stay; -1. */
int32_t sparklet_fail(const char *message);
int32_t sparklet_fail_at(const char *message, uint32_t row);

/* Writes to the host's log: 0 error, 1 warning, 2 note, 3 for the author. */
__attribute__((import_module("sparklet1"), import_name("log"))) void sparklet_log(int32_t level, const char *text, uint32_t len);

/* ---- reading ---- */

static inline const sparklet_col *sparklet_column(const sparklet_batch *in, uint32_t column) {
    return (const sparklet_col *)(uintptr_t)in->cols + column;
}

/* The row of a column that stands for `row`: the first, where one stands for all. */
static inline uint32_t sparklet_at(const sparklet_col *col, uint32_t row) {
    return col->flags & 1 ? 0 : row;
}

static inline bool sparklet_bit(uint32_t bitmap, uint32_t at) {
    return (((const uint8_t *)(uintptr_t)bitmap)[at / 8] >> (at % 8)) & 1;
}

static inline bool sparklet_col_is_null(const sparklet_col *col, uint32_t row) {
    return col->validity && !sparklet_bit(col->validity, sparklet_at(col, row));
}

static inline bool sparklet_is_null(const sparklet_batch *in, uint32_t column, uint32_t row) {
    return sparklet_col_is_null(sparklet_column(in, column), row);
}

static inline bool sparklet_col_bool(const sparklet_col *col, uint32_t row) {
    return sparklet_bit(col->buf0, sparklet_at(col, row));
}

static inline bool sparklet_get_bool(const sparklet_batch *in, uint32_t column, uint32_t row) {
    return sparklet_col_bool(sparklet_column(in, column), row);
}

/* sparklet_get_T(in, column, row) and sparklet_col_T(col, row), for T of i8 ... u64, f32, f64, i128.
 * Date32 is i32; Timestamp and Duration are i64; Decimal128 is i128, in units of its last place. */
#define SPARKLET_FIXED_(T, ctype)                                                                      \
    static inline ctype sparklet_col_##T(const sparklet_col *col, uint32_t row) {                      \
        return ((const ctype *)(uintptr_t)col->buf0)[sparklet_at(col, row)];                           \
    }                                                                                                  \
    static inline ctype sparklet_get_##T(const sparklet_batch *in, uint32_t column, uint32_t row) {    \
        return sparklet_col_##T(sparklet_column(in, column), row);                                     \
    }
SPARKLET_FIXED_(i8, int8_t)
SPARKLET_FIXED_(i16, int16_t)
SPARKLET_FIXED_(i32, int32_t)
SPARKLET_FIXED_(i64, int64_t)
SPARKLET_FIXED_(u8, uint8_t)
SPARKLET_FIXED_(u16, uint16_t)
SPARKLET_FIXED_(u32, uint32_t)
SPARKLET_FIXED_(u64, uint64_t)
SPARKLET_FIXED_(f32, float)
SPARKLET_FIXED_(f64, double)
typedef __int128 sparklet_i128 __attribute__((aligned(8)));
SPARKLET_FIXED_(i128, sparklet_i128)

static inline sparklet_bytes sparklet_col_bytes(const sparklet_col *col, uint32_t row) {
    const int32_t *offsets = (const int32_t *)(uintptr_t)col->buf0 + sparklet_at(col, row);
    sparklet_bytes bytes = {(const uint8_t *)(uintptr_t)col->buf1 + offsets[0], (uint32_t)(offsets[1] - offsets[0])};
    return bytes;
}

/* A Utf8 or Binary. It may not be kept after the call. */
static inline sparklet_bytes sparklet_get_bytes(const sparklet_batch *in, uint32_t column, uint32_t row) {
    return sparklet_col_bytes(sparklet_column(in, column), row);
}

/* Field `field` of a struct column; read it with sparklet_col_T at sparklet_at(struct, row). */
static inline const sparklet_col *sparklet_field(const sparklet_col *col, uint32_t field) {
    return (const sparklet_col *)(uintptr_t)col->children + field;
}

static inline sparklet_range sparklet_col_list(const sparklet_col *col, uint32_t row) {
    const int32_t *offsets = (const int32_t *)(uintptr_t)col->buf0 + sparklet_at(col, row);
    sparklet_range range = {sparklet_field(col, 0), (uint32_t)offsets[0], (uint32_t)offsets[1]};
    return range;
}

static inline sparklet_range sparklet_get_list(const sparklet_batch *in, uint32_t column, uint32_t row) {
    return sparklet_col_list(sparklet_column(in, column), row);
}

/* ---- writing ---- */

typedef struct sparklet_buffer {
    uint8_t *data;
    uint32_t len, capacity;
} sparklet_buffer;

/* A column that is being written, row by row. A list's items are pushed to children[0], then the list itself; a struct's fields to
 * children[0 ...], one each, then the struct itself. */
typedef struct sparklet_writer {
    uint32_t type, rows, nulls, p0, p1, nchildren, full;
    sparklet_buffer validity, values, data;
    struct sparklet_writer *children;
} sparklet_writer;

/* A writer for a type by name, and the column that it wrote. */
sparklet_writer sparklet_write(const char *type, uint32_t rows);
void sparklet_finish(sparklet_writer *writer, sparklet_col *out);

void sparklet_grow(sparklet_buffer *buffer, uint32_t more);
void sparklet_valid(sparklet_writer *writer, bool valid);
void sparklet_push_null(sparklet_writer *writer);
void sparklet_push_bool(sparklet_writer *writer, bool value);
void sparklet_push_bytes(sparklet_writer *writer, sparklet_bytes value);
void sparklet_push_list(sparklet_writer *writer);
void sparklet_push_struct(sparklet_writer *writer);

/* Room for `len` bytes of a Utf8 or Binary, which becomes the next row. */
uint8_t *sparklet_push_room(sparklet_writer *writer, uint32_t len);

/* Where a buffer is (low half) and its capacity when it has room for `more` bytes, or for a bit that it has then. Numbers, no pointers to the
 * buffer, so that a writer whose address nobody else has lies in registers. */
uint64_t sparklet_grown_(uint8_t *data, uint32_t len, uint32_t capacity, uint32_t more);
uint64_t sparklet_with_bit_(uint8_t *data, uint32_t len, uint32_t capacity, uint32_t at, bool bit);

static inline __attribute__((always_inline)) void sparklet_moved_(sparklet_buffer *buffer, uint64_t to) {
    buffer->data = (uint8_t *)(uintptr_t)(uint32_t)to;
    buffer->capacity = (uint32_t)(to >> 32);
}

/* Inlined: a call for each row costs more than all of it. */
#define SPARKLET_PUSH_(T, ctype)                                                                                \
    static inline __attribute__((always_inline)) void sparklet_push_##T(sparklet_writer *writer, ctype value) { \
        sparklet_buffer *values = &writer->values, *bits = &writer->validity;                                   \
        if (values->capacity - values->len < sizeof(ctype)) {                                                   \
            if (writer->full) __builtin_trap();                                                                 \
            sparklet_moved_(values, sparklet_grown_(values->data, values->len, values->capacity, sizeof(ctype))); \
        }                                                                                                       \
        *(ctype *)(void *)(values->data + values->len) = value;                                                 \
        values->len += sizeof(ctype);                                                                           \
        if (writer->nulls) {                                                                                    \
            sparklet_moved_(bits, sparklet_with_bit_(bits->data, bits->len, bits->capacity, writer->rows, true)); \
            bits->len = writer->rows / 8 + 1;                                                                   \
        }                                                                                                       \
        writer->rows++;                                                                                         \
    }
SPARKLET_PUSH_(i8, int8_t)
SPARKLET_PUSH_(i16, int16_t)
SPARKLET_PUSH_(i32, int32_t)
SPARKLET_PUSH_(i64, int64_t)
SPARKLET_PUSH_(u8, uint8_t)
SPARKLET_PUSH_(u16, uint16_t)
SPARKLET_PUSH_(u32, uint32_t)
SPARKLET_PUSH_(u64, uint64_t)
SPARKLET_PUSH_(f32, float)
SPARKLET_PUSH_(f64, double)
SPARKLET_PUSH_(i128, sparklet_i128)

/* Makes `out` a column of `rows` values of `width` bytes each without NULLs; where the values go. */
void *sparklet_fixed(sparklet_col *out, uint32_t type, uint32_t rows, uint32_t width);

/* ---- what a call begins and ends with; used by the macros ---- */

void sparklet_begin_(void);
int32_t sparklet_failed_at_(uint32_t row);
void *sparklet_groups_new_(void);
void *sparklet_groups_(void *handle, uint32_t ngroups, uint32_t width);
void sparklet_groups_forget_(void *handle, uint32_t n, uint32_t width);
uint32_t sparklet_groups_size_(void *handle, uint32_t width);
void sparklet_groups_drop_(void *handle, uint32_t width);
uint32_t sparklet_groups_count_(void *handle);
/* Adds to what the groups of the running update hold beside their structs, for the host's account of memory. */
void sparklet_holds(int32_t bytes);
sparklet_writer *sparklet_writers_(const char *const *types, uint32_t count, uint32_t rows);
void sparklet_finish_batch_(sparklet_writer *writers, uint32_t count, uint32_t rows, sparklet_batch *out);

#ifdef __cplusplus
}
#define SPARKLET_C_ extern "C"
#else
#define SPARKLET_C_
#endif

#define SPARKLET_EXPORT_(name) SPARKLET_C_ __attribute__((export_name(name), used, visibility("default")))

/* ---- the custom section; the compiler's own `section` attribute does not write one ---- */

#define SPARKLET_Q_ "\\\""
#define SPARKLET_SECTION_(text) __asm__(".section .custom_section.sparklet.udf,\"\",@\n.ascii \"" text "\"\n");
#define SPARKLET_KEY_(key) SPARKLET_Q_ key SPARKLET_Q_ ":"
#define SPARKLET_TEXT_(text) SPARKLET_Q_ text SPARKLET_Q_

#define SPARKLET_PICK_(_0, _1, _2, _3, _4, _5, _6, _7, _8, _9, _10, _11, _12, _13, _14, _15, _16, name, ...) name
#define SPARKLET_COUNT_(...) SPARKLET_PICK_(0, ##__VA_ARGS__, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)
#define SPARKLET_JOIN_(a, b) SPARKLET_JOIN__(a, b)
#define SPARKLET_JOIN__(a, b) a##b
#define SPARKLET_APPLY_(macro, list) macro list
#define SPARKLET_CALL_(macro, ...) macro(__VA_ARGS__)

/* The types of a list of up to eight, as items of a JSON array ... */
#define SPARKLET_TYPES_(...) SPARKLET_CALL_(SPARKLET_JOIN_(SPARKLET_T, SPARKLET_COUNT_(__VA_ARGS__)), ##__VA_ARGS__)
#define SPARKLET_T0(...)
#define SPARKLET_T1(a) SPARKLET_TEXT_(#a)
#define SPARKLET_T2(a, ...) SPARKLET_TEXT_(#a) "," SPARKLET_T1(__VA_ARGS__)
#define SPARKLET_T3(a, ...) SPARKLET_TEXT_(#a) "," SPARKLET_T2(__VA_ARGS__)
#define SPARKLET_T4(a, ...) SPARKLET_TEXT_(#a) "," SPARKLET_T3(__VA_ARGS__)
#define SPARKLET_T5(a, ...) SPARKLET_TEXT_(#a) "," SPARKLET_T4(__VA_ARGS__)
#define SPARKLET_T6(a, ...) SPARKLET_TEXT_(#a) "," SPARKLET_T5(__VA_ARGS__)
#define SPARKLET_T7(a, ...) SPARKLET_TEXT_(#a) "," SPARKLET_T6(__VA_ARGS__)
#define SPARKLET_T8(a, ...) SPARKLET_TEXT_(#a) "," SPARKLET_T7(__VA_ARGS__)

/* ... as C strings ... */
#define SPARKLET_NAMES_(...) SPARKLET_CALL_(SPARKLET_JOIN_(SPARKLET_N, SPARKLET_COUNT_(__VA_ARGS__)), ##__VA_ARGS__)
#define SPARKLET_N1(a) #a
#define SPARKLET_N2(a, ...) #a, SPARKLET_N1(__VA_ARGS__)
#define SPARKLET_N3(a, ...) #a, SPARKLET_N2(__VA_ARGS__)
#define SPARKLET_N4(a, ...) #a, SPARKLET_N3(__VA_ARGS__)
#define SPARKLET_N5(a, ...) #a, SPARKLET_N4(__VA_ARGS__)
#define SPARKLET_N6(a, ...) #a, SPARKLET_N5(__VA_ARGS__)
#define SPARKLET_N7(a, ...) #a, SPARKLET_N6(__VA_ARGS__)
#define SPARKLET_N8(a, ...) #a, SPARKLET_N7(__VA_ARGS__)

/* ... and pairs of a column's name and type: as JSON, and the types as C strings. */
#define SPARKLET_PAIRS_(...) SPARKLET_CALL_(SPARKLET_JOIN_(SPARKLET_P, SPARKLET_COUNT_(__VA_ARGS__)), ##__VA_ARGS__)
#define SPARKLET_P2(a, b) "[" SPARKLET_TEXT_(#a) "," SPARKLET_TEXT_(#b) "]"
#define SPARKLET_P4(a, b, ...) SPARKLET_P2(a, b) "," SPARKLET_P2(__VA_ARGS__)
#define SPARKLET_P6(a, b, ...) SPARKLET_P2(a, b) "," SPARKLET_P4(__VA_ARGS__)
#define SPARKLET_P8(a, b, ...) SPARKLET_P2(a, b) "," SPARKLET_P6(__VA_ARGS__)
#define SPARKLET_P10(a, b, ...) SPARKLET_P2(a, b) "," SPARKLET_P8(__VA_ARGS__)
#define SPARKLET_P12(a, b, ...) SPARKLET_P2(a, b) "," SPARKLET_P10(__VA_ARGS__)
#define SPARKLET_P14(a, b, ...) SPARKLET_P2(a, b) "," SPARKLET_P12(__VA_ARGS__)
#define SPARKLET_P16(a, b, ...) SPARKLET_P2(a, b) "," SPARKLET_P14(__VA_ARGS__)
#define SPARKLET_SECONDS_(...) SPARKLET_CALL_(SPARKLET_JOIN_(SPARKLET_S, SPARKLET_COUNT_(__VA_ARGS__)), ##__VA_ARGS__)
#define SPARKLET_S2(a, b) #b
#define SPARKLET_S4(a, b, ...) #b, SPARKLET_S2(__VA_ARGS__)
#define SPARKLET_S6(a, b, ...) #b, SPARKLET_S4(__VA_ARGS__)
#define SPARKLET_S8(a, b, ...) #b, SPARKLET_S6(__VA_ARGS__)
#define SPARKLET_S10(a, b, ...) #b, SPARKLET_S8(__VA_ARGS__)
#define SPARKLET_S12(a, b, ...) #b, SPARKLET_S10(__VA_ARGS__)
#define SPARKLET_S14(a, b, ...) #b, SPARKLET_S12(__VA_ARGS__)
#define SPARKLET_S16(a, b, ...) #b, SPARKLET_S14(__VA_ARGS__)

#define SPARKLET_HEAD_(name, kind, function)                                                                       \
    "{" SPARKLET_KEY_("name") SPARKLET_TEXT_(#name) "," SPARKLET_KEY_("kind") SPARKLET_TEXT_(kind) ","             \
        SPARKLET_KEY_("export") SPARKLET_TEXT_("udf_" #function) ","

#define SPARKLET_DESCRIBE_SCALAR_(name, function, nulls, returns, ...)                                             \
    SPARKLET_SECTION_(SPARKLET_HEAD_(name, "scalar", function)                                                     \
        SPARKLET_KEY_("nulls") SPARKLET_TEXT_(nulls) ","                                                           \
        SPARKLET_KEY_("args") "[" SPARKLET_TYPES_(__VA_ARGS__) "],"                                                \
        SPARKLET_KEY_("returns") SPARKLET_TEXT_(#returns) "}\\n")

/* ---- scalar functions ---- */

/* SPARKLET_SCALAR(name, result, arguments ...) { ... }: called for each row with `in`, `row` and `result`, of which it pushes one value. */
#define SPARKLET_SCALAR(name, returns, ...)                                                                        \
    SPARKLET_DESCRIBE_SCALAR_(name, name, "propagate", returns, ##__VA_ARGS__)                                     \
    SPARKLET_ROWS_(name, #returns)

/* The same for a function that is called with NULLs too: sparklet_is_null(in, column, row). */
#define SPARKLET_SCALAR_NULLS(name, returns, ...)                                                                  \
    SPARKLET_DESCRIBE_SCALAR_(name, name, "called", returns, ##__VA_ARGS__)                                        \
    SPARKLET_ROWS_(name, #returns)

/* An overload: several functions under one name in SQL. */
#define SPARKLET_OVERLOAD(name, function, returns, ...)                                                            \
    SPARKLET_DESCRIBE_SCALAR_(name, function, "propagate", returns, ##__VA_ARGS__)                                 \
    SPARKLET_ROWS_(function, #returns)

/* Called with whole columns: fills `out` with in->rows rows, e.g. by sparklet_fixed. */
/* Between these two the compiler may use vectors of 128 bits, whatever it is told for the rest: for loops over floating-point numbers. What
 * multiplies 64-bit integers one after the other is slower with them. Nothing where the compiler is not clang (Zig's is). */
#if defined(__clang__) && defined(__wasm__)
#define SPARKLET_VECTORS_BEGIN _Pragma("clang attribute push(__attribute__((target(\"simd128\"))), apply_to = function)")
#define SPARKLET_VECTORS_END _Pragma("clang attribute pop")
#else
#define SPARKLET_VECTORS_BEGIN
#define SPARKLET_VECTORS_END
#endif

#define SPARKLET_BATCH(name, returns, ...)                                                                         \
    SPARKLET_DESCRIBE_SCALAR_(name, name, "propagate", returns, ##__VA_ARGS__)                                     \
    static inline int32_t sparklet_batch_##name(const sparklet_batch *in, sparklet_col *out);                      \
    SPARKLET_EXPORT_("udf_" #name) int32_t sparklet_udf_##name(const sparklet_batch *in, sparklet_col *out) {      \
        sparklet_begin_();                                                                                         \
        return sparklet_batch_##name(in, out);                                                                     \
    }                                                                                                              \
    static inline int32_t sparklet_batch_##name(const sparklet_batch *in, sparklet_col *out)

/* The batch and the writer are copies, which no store to memory can change: where all that a function pushes is inlined, its loop has no
 * call and reloads nothing. There is room for one value a row, so that the writer is full after as many. */
#define SPARKLET_ROWS_(name, returns)                                                                              \
    static inline int32_t sparklet_row_##name(const sparklet_batch *in, uint32_t row, sparklet_writer *result);    \
    SPARKLET_EXPORT_("udf_" #name) int32_t sparklet_udf_##name(const sparklet_batch *in, sparklet_col *out) {      \
        sparklet_begin_();                                                                                         \
        const sparklet_batch batch = *in;                                                                          \
        sparklet_writer made = sparklet_write(returns, batch.rows), result = made;                                 \
        result.nulls = 0;                                                                                          \
        result.full = 1;                                                                                           \
        for (uint32_t row = 0; row < batch.rows; row++) {                                                          \
            if (sparklet_row_##name(&batch, row, &result) < 0) return sparklet_failed_at_(row);                    \
        }                                                                                                          \
        made = result;                                                                                             \
        sparklet_finish(&made, out);                                                                               \
        return 0;                                                                                                  \
    }                                                                                                              \
    static inline int32_t sparklet_row_##name(const sparklet_batch *in, uint32_t row, sparklet_writer *result)

/* ---- aggregate functions ----
 *
 *     typedef struct { double sum, weight; } wavg;                                     // one group; begins as zeros
 *     SPARKLET_AGGREGATE(wavg, wavg, Float64, (Float64, Float64), Float64, Float64)    // name, struct, result, (state), arguments
 *     SPARKLET_UPDATE(wavg) { ... return 0; }      // group, in, row: takes in a row of arguments
 *     SPARKLET_MERGE(wavg) { ... return 0; }       // group, in, row: takes in a row of states
 *     SPARKLET_STATE(wavg) { ... return 0; }       // group, state: pushes one value to each of state[0 ...]
 *     SPARKLET_EVALUATE(wavg) { ... return 0; }    // group, result: pushes one value
 *     SPARKLET_FORGET(wavg) { }                    // group: frees what the group holds beside its struct
 *
 * All five are needed. Rows with NULLs are passed over by the host. A group that holds memory tells sparklet_holds. */
#define SPARKLET_AGGREGATE(name, group_type, returns, states, ...)                                                 \
    SPARKLET_SECTION_(SPARKLET_HEAD_(name, "aggregate", name)                                                      \
        SPARKLET_KEY_("args") "[" SPARKLET_TYPES_(__VA_ARGS__) "],"                                                \
        SPARKLET_KEY_("state") "[" SPARKLET_APPLY_(SPARKLET_TYPES_, states) "],"                     \
        SPARKLET_KEY_("returns") SPARKLET_TEXT_(#returns) "}\\n")                                                  \
    typedef group_type sparklet_group_##name;                                                                      \
    static inline int32_t sparklet_update_##name(group_type *group, const sparklet_batch *in, uint32_t row);       \
    static inline int32_t sparklet_merge_##name(group_type *group, const sparklet_batch *in, uint32_t row);        \
    static inline int32_t sparklet_state_##name(group_type *group, sparklet_writer *state);                        \
    static inline int32_t sparklet_evaluate_##name(group_type *group, sparklet_writer *result);                    \
    static inline void sparklet_forget_##name(group_type *group);                                                  \
    SPARKLET_EXPORT_("udf_" #name "_new") void *sparklet_new_##name(void) { return sparklet_groups_new_(); }       \
    SPARKLET_TAKE_(name, group_type, update)                                                                       \
    SPARKLET_TAKE_(name, group_type, merge)                                                                        \
    static void sparklet_first_##name(void *h, uint32_t n) {                                                       \
        group_type *groups = (group_type *)sparklet_groups_(h, 0, sizeof(group_type));                             \
        for (uint32_t at = 0; at < n; at++) sparklet_forget_##name(&groups[at]);                                   \
        sparklet_groups_forget_(h, n, sizeof(group_type));                                                         \
    }                                                                                                              \
    SPARKLET_EXPORT_("udf_" #name "_state") int32_t sparklet_states_##name(void *h, uint32_t n, sparklet_batch *out) { \
        static const char *const types[] = {SPARKLET_APPLY_(SPARKLET_NAMES_, states)};               \
        const uint32_t count = sizeof(types) / sizeof(types[0]);                                                   \
        sparklet_begin_();                                                                                         \
        group_type *groups = (group_type *)sparklet_groups_(h, n, sizeof(group_type));                             \
        if (!groups && n) return sparklet_fail("out of memory");                                                   \
        sparklet_writer *state = sparklet_writers_(types, count, n);                                               \
        for (uint32_t at = 0; at < n; at++) {                                                                      \
            if (sparklet_state_##name(&groups[at], state) < 0) return sparklet_failed_at_(at);                     \
        }                                                                                                          \
        sparklet_finish_batch_(state, count, n, out);                                                              \
        sparklet_first_##name(h, n);                                                                               \
        return 0;                                                                                                  \
    }                                                                                                              \
    SPARKLET_EXPORT_("udf_" #name "_evaluate") int32_t sparklet_results_##name(void *h, uint32_t n, sparklet_col *out) { \
        sparklet_begin_();                                                                                         \
        group_type *groups = (group_type *)sparklet_groups_(h, n, sizeof(group_type));                             \
        if (!groups && n) return sparklet_fail("out of memory");                                                   \
        sparklet_writer result = sparklet_write(#returns, n);                                                      \
        for (uint32_t at = 0; at < n; at++) {                                                                      \
            if (sparklet_evaluate_##name(&groups[at], &result) < 0) return sparklet_failed_at_(at);                \
        }                                                                                                          \
        sparklet_finish(&result, out);                                                                             \
        sparklet_first_##name(h, n);                                                                               \
        return 0;                                                                                                  \
    }                                                                                                              \
    SPARKLET_EXPORT_("udf_" #name "_size") uint32_t sparklet_size_##name(void *h) {                                \
        return sparklet_groups_size_(h, sizeof(group_type));                                                       \
    }                                                                                                              \
    SPARKLET_EXPORT_("udf_" #name "_drop") void sparklet_drop_##name(void *h) {                                    \
        sparklet_first_##name(h, sparklet_groups_count_(h));                                                       \
        sparklet_groups_drop_(h, sizeof(group_type));                                                              \
    }

#define SPARKLET_TAKE_(name, group_type, step)                                                                     \
    SPARKLET_EXPORT_("udf_" #name "_" #step)                                                                       \
    int32_t sparklet_##step##s_##name(void *h, const sparklet_batch *in, const uint32_t *ids, uint32_t ngroups) {  \
        sparklet_begin_();                                                                                         \
        group_type *groups = (group_type *)sparklet_groups_(h, ngroups, sizeof(group_type));                       \
        if (!groups && ngroups) return sparklet_fail("out of memory");                                             \
        for (uint32_t row = 0; row < in->rows; row++) {                                                            \
            if (sparklet_##step##_##name(&groups[ids[row]], in, row) < 0) return sparklet_failed_at_(row);         \
        }                                                                                                          \
        return 0;                                                                                                  \
    }

#define SPARKLET_UPDATE(name) \
    static inline int32_t sparklet_update_##name(sparklet_group_##name *group, const sparklet_batch *in, uint32_t row)
#define SPARKLET_MERGE(name) \
    static inline int32_t sparklet_merge_##name(sparklet_group_##name *group, const sparklet_batch *in, uint32_t row)
#define SPARKLET_STATE(name) static inline int32_t sparklet_state_##name(sparklet_group_##name *group, sparklet_writer *state)
#define SPARKLET_EVALUATE(name) static inline int32_t sparklet_evaluate_##name(sparklet_group_##name *group, sparklet_writer *result)
#define SPARKLET_FORGET(name) static inline void sparklet_forget_##name(sparklet_group_##name *group)

/* ---- table functions ----
 *
 *     typedef struct { int64_t at, last; } series;                            // a call that is going on
 *     SPARKLET_TABLE(series, series, (n, Int64), Int64, Int64)                // name, struct, (column, type ...), arguments
 *     SPARKLET_OPEN(series) { ... return 0; }      // cursor, in: the arguments are row 0 of `in`, which may not be kept
 *     SPARKLET_NEXT(series) { ... return 0; }      // cursor, columns: pushes one value to each of columns[0 ...]; 1 at the end
 *     SPARKLET_CLOSE(series) { }                   // cursor: frees what it holds
 */
#define SPARKLET_TABLE(name, cursor_type, pairs, ...)                                                              \
    SPARKLET_SECTION_(SPARKLET_HEAD_(name, "table", name)                                                          \
        SPARKLET_KEY_("args") "[" SPARKLET_TYPES_(__VA_ARGS__) "],"                                                \
        SPARKLET_KEY_("columns") "[" SPARKLET_APPLY_(SPARKLET_PAIRS_, pairs) "]}\\n")                \
    typedef cursor_type sparklet_cursor_##name;                                                                    \
    static inline int32_t sparklet_open_##name(cursor_type *cursor, const sparklet_batch *in);                     \
    static inline int32_t sparklet_next_##name(cursor_type *cursor, sparklet_writer *columns);                     \
    static inline void sparklet_close_##name(cursor_type *cursor);                                                 \
    SPARKLET_EXPORT_("udf_" #name "_open") int32_t sparklet_opens_##name(const sparklet_batch *in) {               \
        sparklet_begin_();                                                                                         \
        cursor_type *cursor = (cursor_type *)sparklet_alloc(sizeof(cursor_type), 64);                              \
        if (!cursor) return sparklet_fail("out of memory");                                                        \
        __builtin_memset(cursor, 0, sizeof(cursor_type));                                                          \
        if (sparklet_open_##name(cursor, in) < 0) {                                                                \
            sparklet_free(cursor, sizeof(cursor_type), 64);                                                        \
            return sparklet_failed_at_(0);                                                                         \
        }                                                                                                          \
        return (int32_t)(uintptr_t)cursor;                                                                         \
    }                                                                                                              \
    SPARKLET_EXPORT_("udf_" #name "_next") int32_t sparklet_nexts_##name(cursor_type *cursor, sparklet_batch *out) { \
        static const char *const types[] = {SPARKLET_APPLY_(SPARKLET_SECONDS_, pairs)};              \
        const uint32_t count = sizeof(types) / sizeof(types[0]);                                                   \
        sparklet_begin_();                                                                                         \
        sparklet_writer *columns = sparklet_writers_(types, count, 0);                                             \
        uint32_t rows = 0;                                                                                         \
        for (; rows < 8192; rows++) {                                                                              \
            int32_t status = sparklet_next_##name(cursor, columns);                                                \
            if (status < 0) return sparklet_failed_at_(rows);                                                      \
            if (status > 0) break;                                                                                 \
        }                                                                                                          \
        if (!rows) return 1;                                                                                       \
        sparklet_finish_batch_(columns, count, rows, out);                                                         \
        return 0;                                                                                                  \
    }                                                                                                              \
    SPARKLET_EXPORT_("udf_" #name "_close") void sparklet_closes_##name(cursor_type *cursor) {                     \
        sparklet_close_##name(cursor);                                                                             \
        sparklet_free(cursor, sizeof(cursor_type), 64);                                                            \
    }

#define SPARKLET_OPEN(name) static inline int32_t sparklet_open_##name(sparklet_cursor_##name *cursor, const sparklet_batch *in)
#define SPARKLET_NEXT(name) static inline int32_t sparklet_next_##name(sparklet_cursor_##name *cursor, sparklet_writer *columns)
#define SPARKLET_CLOSE(name) static inline void sparklet_close_##name(sparklet_cursor_##name *cursor)

#endif /* SPARKLET_UDF_H */

#if defined(SPARKLET_IMPLEMENTATION) && !defined(SPARKLET_IMPLEMENTED_)
#define SPARKLET_IMPLEMENTED_
#include "sparklet_udf_impl.h"
#endif
