/* The columnar functions of the cases, in C. */

#define SPARKLET_IMPLEMENTATION
#include "sparklet_udf.h"

static sparklet_bytes bytes(const void *data, uint32_t len) {
    sparklet_bytes made = {(const uint8_t *)data, len};
    return made;
}

static bool is_space(uint8_t c) {
    return c == ' ' || (c >= 9 && c <= 13);
}

/* The next word of a text from `*at` on; false at the end. */
static bool next_word(sparklet_bytes text, uint32_t *at, sparklet_bytes *word) {
    while (*at < text.len && is_space(text.data[*at])) ++*at;
    uint32_t from = *at;
    while (*at < text.len && !is_space(text.data[*at])) ++*at;
    *word = bytes(text.data + from, *at - from);
    return word->len > 0;
}

static int compare(sparklet_bytes a, sparklet_bytes b) {
    int order = __builtin_memcmp(a.data, b.data, a.len < b.len ? a.len : b.len);
    return order ? order : a.len < b.len ? -1 : a.len > b.len;
}

static sparklet_bytes copy(sparklet_bytes text) {
    uint8_t *data = (uint8_t *)sparklet_alloc(text.len, 1);
    if (!data) __builtin_trap();
    __builtin_memcpy(data, text.data, text.len);
    sparklet_holds((int32_t)text.len);
    return bytes(data, text.len);
}

static void forget(sparklet_bytes text) {
    sparklet_holds(-(int32_t)text.len);
    sparklet_free((void *)text.data, text.len, 1);
}

SPARKLET_SCALAR(xor, Boolean, Boolean, Boolean) {
    sparklet_push_bool(result, sparklet_get_bool(in, 0, row) != sparklet_get_bool(in, 1, row));
    return 0;
}

#define ADD(name, type, T, ctype)                                                                        \
    SPARKLET_SCALAR(name, type, type, type) {                                                            \
        sparklet_push_##T(result, (ctype)(sparklet_get_##T(in, 0, row) + sparklet_get_##T(in, 1, row))); \
        return 0;                                                                                        \
    }
ADD(add_int8, Int8, i8, int8_t)
ADD(add_int16, Int16, i16, int16_t)
ADD(add_uint8, UInt8, u8, uint8_t)
ADD(add_uint16, UInt16, u16, uint16_t)
ADD(add_uint32, UInt32, u32, uint32_t)
ADD(add_uint64, UInt64, u64, uint64_t)

SPARKLET_SCALAR(add_int32, Int32, Int32, Int32) {
    sparklet_push_u32(result, sparklet_get_u32(in, 0, row) + sparklet_get_u32(in, 1, row));
    return 0;
}

SPARKLET_SCALAR(add_int64, Int64, Int64, Int64) {
    sparklet_push_u64(result, sparklet_get_u64(in, 0, row) + sparklet_get_u64(in, 1, row));
    return 0;
}

SPARKLET_SCALAR(half_float32, Float32, Float32) {
    sparklet_push_f32(result, sparklet_get_f32(in, 0, row) / 2);
    return 0;
}

SPARKLET_VECTORS_BEGIN
SPARKLET_BATCH(mul_add, Float64, Float64, Float64) {
    double *result = (double *)sparklet_fixed(out, SPARKLET_FLOAT64, in->rows, sizeof(double));
    for (uint32_t row = 0; row < in->rows; row++) {
        result[row] = sparklet_get_f64(in, 0, row) * sparklet_get_f64(in, 1, row) + 1;
    }
    return 0;
}
SPARKLET_VECTORS_END

SPARKLET_SCALAR(shout, Utf8, Utf8) {
    sparklet_bytes text = sparklet_get_bytes(in, 0, row);
    uint8_t *to = sparklet_push_room(result, text.len + 1);
    for (uint32_t at = 0; at < text.len; at++) {
        uint8_t c = text.data[at];
        to[at] = c >= 'a' && c <= 'z' ? c - 32 : c;
    }
    to[text.len] = '!';
    return 0;
}

SPARKLET_SCALAR_NULLS(or_else, Utf8, Utf8, Utf8) {
    for (uint32_t column = 0; column < 2; column++) {
        if (!sparklet_is_null(in, column, row)) {
            sparklet_push_bytes(result, sparklet_get_bytes(in, column, row));
            return 0;
        }
    }
    sparklet_push_null(result);
    return 0;
}

SPARKLET_SCALAR_NULLS(is_missing, Boolean, Int64) {
    sparklet_push_bool(result, sparklet_is_null(in, 0, row));
    return 0;
}

SPARKLET_SCALAR(reverse_bytes, Binary, Binary) {
    sparklet_bytes from = sparklet_get_bytes(in, 0, row);
    uint8_t *to = sparklet_push_room(result, from.len);
    for (uint32_t at = 0; at < from.len; at++) to[at] = from.data[from.len - 1 - at];
    return 0;
}

SPARKLET_SCALAR(double_decimal, Decimal128(12,2), Decimal128(12,2)) {
    sparklet_i128 value = sparklet_get_i128(in, 0, row);
    sparklet_push_i128(result, value + value);
    return 0;
}

SPARKLET_SCALAR(next_day, Date32, Date32) {
    sparklet_push_i32(result, sparklet_get_i32(in, 0, row) + 1);
    return 0;
}

SPARKLET_SCALAR(add_hour, Timestamp(us), Timestamp(us)) {
    sparklet_push_i64(result, sparklet_get_i64(in, 0, row) + 3600000000);
    return 0;
}

SPARKLET_SCALAR(add_hour_utc, Timestamp(ms,UTC), Timestamp(ms,UTC)) {
    sparklet_push_i64(result, sparklet_get_i64(in, 0, row) + 3600000);
    return 0;
}

SPARKLET_SCALAR(negate, Duration(s), Duration(s)) {
    sparklet_push_i64(result, -sparklet_get_i64(in, 0, row));
    return 0;
}

SPARKLET_SCALAR(sum_list, Int64, List(Int64)) {
    sparklet_range list = sparklet_get_list(in, 0, row);
    int64_t sum = 0;
    if (!sparklet_is_null(in, 0, row)) {
        for (uint32_t at = list.from; at < list.to; at++) {
            if (!sparklet_col_is_null(list.items, at)) sum += sparklet_col_i64(list.items, at);
        }
    }
    sparklet_push_i64(result, sum);
    return 0;
}

SPARKLET_SCALAR(letters, List(Utf8), Utf8) {
    sparklet_bytes text = sparklet_get_bytes(in, 0, row);
    for (uint32_t from = 0, to = 0; from < text.len; from = to) {
        do to++;
        while (to < text.len && (text.data[to] & 0xC0) == 0x80);
        sparklet_push_bytes(&result->children[0], bytes(text.data + from, to - from));
    }
    sparklet_push_list(result);
    return 0;
}

SPARKLET_SCALAR(nested, List(List(Int64)), Int64) {
    sparklet_writer *lists = &result->children[0];
    int64_t n = sparklet_is_null(in, 0, row) ? 0 : sparklet_get_i64(in, 0, row);
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < i; j++) sparklet_push_i64(&lists->children[0], j);
        sparklet_push_list(lists);
    }
    sparklet_push_list(result);
    return 0;
}

SPARKLET_SCALAR(swap, Struct(x: Float64, y: Float64), Struct(x: Float64, y: Float64)) {
    const sparklet_col *point = sparklet_column(in, 0);
    uint32_t at = sparklet_at(point, row);
    for (uint32_t field = 0; field < 2; field++) {
        const sparklet_col *other = sparklet_field(point, 1 - field);
        if (sparklet_col_is_null(other, at)) sparklet_push_null(&result->children[field]);
        else sparklet_push_f64(&result->children[field], sparklet_col_f64(other, at));
    }
    sparklet_push_struct(result);
    return 0;
}

SPARKLET_SCALAR(tag, Struct(n: Int64, words: List(Utf8)), Int64, Utf8) {
    int64_t n = sparklet_get_i64(in, 0, row);
    if (n < 0) sparklet_push_null(&result->children[0]);
    else sparklet_push_i64(&result->children[0], n);
    sparklet_bytes text = sparklet_get_bytes(in, 1, row), word;
    uint32_t at = 0;
    while (next_word(text, &at, &word)) sparklet_push_bytes(&result->children[1].children[0], word);
    sparklet_push_list(&result->children[1]);
    sparklet_push_struct(result);
    return 0;
}

/* Rows with NULLs have any number in their slot, zero too: so this one looks. */
SPARKLET_SCALAR_NULLS(checked_div, Int64, Int64, Int64) {
    if (sparklet_is_null(in, 0, row) || sparklet_is_null(in, 1, row)) {
        sparklet_push_null(result);
        return 0;
    }
    int64_t by = sparklet_get_i64(in, 1, row);
    if (by == 0) return sparklet_fail("division by zero");
    sparklet_push_i64(result, sparklet_get_i64(in, 0, row) / by);
    return 0;
}

SPARKLET_OVERLOAD(twice, twice_int64, Int64, Int64) {
    sparklet_push_u64(result, sparklet_get_u64(in, 0, row) * 2);
    return 0;
}

SPARKLET_OVERLOAD(twice, twice_utf8, Utf8, Utf8) {
    sparklet_bytes text = sparklet_get_bytes(in, 0, row);
    uint8_t *to = sparklet_push_room(result, text.len * 2);
    __builtin_memcpy(to, text.data, text.len);
    __builtin_memcpy(to + text.len, text.data, text.len);
    return 0;
}

SPARKLET_SCALAR(forty_two, Int32) {
    (void)in, (void)row;
    sparklet_push_i32(result, 42);
    return 0;
}

/* The average of values by weight. */
typedef struct {
    double sum, weight;
} wavg;

SPARKLET_AGGREGATE(wavg, wavg, Float64, (Float64, Float64), Float64, Float64)

SPARKLET_UPDATE(wavg) {
    if (sparklet_is_null(in, 0, row) || sparklet_is_null(in, 1, row)) return 0;
    group->sum += sparklet_get_f64(in, 0, row) * sparklet_get_f64(in, 1, row);
    group->weight += sparklet_get_f64(in, 1, row);
    return 0;
}

SPARKLET_MERGE(wavg) {
    group->sum += sparklet_get_f64(in, 0, row);
    group->weight += sparklet_get_f64(in, 1, row);
    return 0;
}

SPARKLET_STATE(wavg) {
    sparklet_push_f64(&state[0], group->sum);
    sparklet_push_f64(&state[1], group->weight);
    return 0;
}

SPARKLET_EVALUATE(wavg) {
    if (group->weight == 0) sparklet_push_null(result);
    else sparklet_push_f64(result, group->sum / group->weight);
    return 0;
}

SPARKLET_FORGET(wavg) {
    (void)group;
}

/* The longest text; of equally long ones the first in order. */
typedef struct {
    sparklet_bytes best;
    bool any;
} longest;

SPARKLET_AGGREGATE(longest, longest, Utf8, (Utf8), Utf8)

SPARKLET_FORGET(longest) {
    if (group->any) forget(group->best);
    group->any = false;
}

SPARKLET_UPDATE(longest) {
    if (sparklet_is_null(in, 0, row)) return 0;
    sparklet_bytes text = sparklet_get_bytes(in, 0, row);
    if (group->any && (text.len < group->best.len || (text.len == group->best.len && compare(text, group->best) >= 0))) return 0;
    sparklet_forget_longest(group);
    group->best = copy(text);
    group->any = true;
    return 0;
}

SPARKLET_MERGE(longest) {
    return sparklet_update_longest(group, in, row);
}

SPARKLET_EVALUATE(longest) {
    if (group->any) sparklet_push_bytes(result, group->best);
    else sparklet_push_null(result);
    return 0;
}

SPARKLET_STATE(longest) {
    return sparklet_evaluate_longest(group, &state[0]);
}

/* How many different texts there are: a sorted array. */
typedef struct {
    sparklet_bytes *texts;
    uint32_t count, room;
} distinct;

static int32_t insert(distinct *group, sparklet_bytes text) {
    uint32_t low = 0, high = group->count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        int order = compare(group->texts[middle], text);
        if (order == 0) return 0;
        if (order < 0) low = middle + 1;
        else high = middle;
    }
    if (group->count == group->room) {
        uint32_t room = group->room ? group->room * 2 : 8;
        sparklet_bytes *texts = (sparklet_bytes *)sparklet_alloc(room * sizeof(*texts), 8);
        if (!texts) return sparklet_fail("out of memory");
        __builtin_memcpy(texts, group->texts, group->count * sizeof(*texts));
        sparklet_free(group->texts, group->room * sizeof(*texts), 8);
        sparklet_holds((int32_t)((room - group->room) * sizeof(*texts)));
        group->texts = texts;
        group->room = room;
    }
    __builtin_memmove(group->texts + low + 1, group->texts + low, (group->count - low) * sizeof(*group->texts));
    group->texts[low] = copy(text);
    group->count++;
    return 0;
}

SPARKLET_AGGREGATE(distinct_texts, distinct, Int64, (List(Utf8)), Utf8)

SPARKLET_UPDATE(distinct_texts) {
    return sparklet_is_null(in, 0, row) ? 0 : insert(group, sparklet_get_bytes(in, 0, row));
}

SPARKLET_MERGE(distinct_texts) {
    sparklet_range texts = sparklet_get_list(in, 0, row);
    for (uint32_t at = texts.from; at < texts.to; at++) {
        if (insert(group, sparklet_col_bytes(texts.items, at)) < 0) return -1;
    }
    return 0;
}

SPARKLET_STATE(distinct_texts) {
    for (uint32_t at = 0; at < group->count; at++) sparklet_push_bytes(&state[0].children[0], group->texts[at]);
    sparklet_push_list(&state[0]);
    return 0;
}

SPARKLET_EVALUATE(distinct_texts) {
    sparklet_push_i64(result, group->count);
    return 0;
}

SPARKLET_FORGET(distinct_texts) {
    for (uint32_t at = 0; at < group->count; at++) forget(group->texts[at]);
    sparklet_holds(-(int32_t)(group->room * sizeof(*group->texts)));
    sparklet_free(group->texts, group->room * sizeof(*group->texts), 8);
}

/* The words of a text, and where they are. */
typedef struct {
    sparklet_bytes text;
    uint32_t at;
    int32_t count;
} words;

SPARKLET_TABLE(words, words, (word, Utf8, at, Int32), Utf8)

SPARKLET_OPEN(words) {
    if (!sparklet_is_null(in, 0, 0)) cursor->text = copy(sparklet_get_bytes(in, 0, 0));
    return 0;
}

SPARKLET_NEXT(words) {
    sparklet_bytes word;
    if (!next_word(cursor->text, &cursor->at, &word)) return 1;
    sparklet_push_bytes(&columns[0], word);
    sparklet_push_i32(&columns[1], cursor->count++);
    return 0;
}

SPARKLET_CLOSE(words) {
    if (cursor->text.data) forget(cursor->text);
}

typedef struct {
    int64_t at, last;
} series;

SPARKLET_TABLE(series, series, (n, Int64), Int64, Int64)

SPARKLET_OPEN(series) {
    cursor->at = 0;
    cursor->last = -1;
    if (sparklet_is_null(in, 0, 0) || sparklet_is_null(in, 1, 0)) return 0;
    cursor->at = sparklet_get_i64(in, 0, 0);
    cursor->last = sparklet_get_i64(in, 1, 0);
    return cursor->at > cursor->last ? sparklet_fail("the series ends before it begins") : 0;
}

SPARKLET_NEXT(series) {
    if (cursor->at > cursor->last) return 1;
    sparklet_push_i64(&columns[0], cursor->at++);
    return 0;
}

SPARKLET_CLOSE(series) {
    (void)cursor;
}
