/* The functions of `cargo bench --bench udf`: the same as in udf.rs, for the sandbox. */

#define SPARKLET_IMPLEMENTATION
#include "sparklet_udf.h"

SPARKLET_VECTORS_BEGIN
SPARKLET_BATCH(margin, Float64, Float64, Float64) {
    double *result = (double *)sparklet_fixed(out, SPARKLET_FLOAT64, in->rows, sizeof(double));
    const double *a = (const double *)(uintptr_t)sparklet_column(in, 0)->buf0;
    const double *b = (const double *)(uintptr_t)sparklet_column(in, 1)->buf0;
    for (uint32_t row = 0; row < in->rows; row++) result[row] = a[row] * b[row] + 1;
    return 0;
}
SPARKLET_VECTORS_END

SPARKLET_BATCH(mix, Int64, Int64) {
    uint64_t *result = (uint64_t *)sparklet_fixed(out, SPARKLET_INT64, in->rows, sizeof(uint64_t));
    const uint64_t *values = (const uint64_t *)(uintptr_t)sparklet_column(in, 0)->buf0;
    for (uint32_t row = 0; row < in->rows; row++) {
        uint64_t x = values[row];
        for (int step = 0; step < 64; step++) {
            x ^= x >> 33;
            x *= 0xff51afd7ed558ccdull;
        }
        result[row] = x;
    }
    return 0;
}

SPARKLET_SCALAR(hash, Int64, Utf8) {
    sparklet_bytes text = sparklet_get_bytes(in, 0, row);
    uint64_t hash = 0xcbf29ce484222325ull;
    for (uint32_t at = 0; at < text.len; at++) hash = (hash ^ text.data[at]) * 0x100000001b3ull;
    sparklet_push_i64(result, (int64_t)hash);
    return 0;
}

typedef struct {
    int64_t sum;
} total;

SPARKLET_AGGREGATE(total, total, Int64, (Int64), Int64)

SPARKLET_UPDATE(total) {
    group->sum += sparklet_get_i64(in, 0, row);
    return 0;
}

SPARKLET_MERGE(total) {
    group->sum += sparklet_get_i64(in, 0, row);
    return 0;
}

SPARKLET_STATE(total) {
    sparklet_push_i64(&state[0], group->sum);
    return 0;
}

SPARKLET_EVALUATE(total) {
    sparklet_push_i64(result, group->sum);
    return 0;
}

SPARKLET_FORGET(total) {
    (void)group;
}

/* How many different texts there are: a sorted array. */
typedef struct {
    sparklet_bytes *texts;
    uint32_t count, room;
} kinds;

static int compare(sparklet_bytes a, sparklet_bytes b) {
    int order = __builtin_memcmp(a.data, b.data, a.len < b.len ? a.len : b.len);
    return order ? order : a.len < b.len ? -1 : a.len > b.len;
}

static int32_t insert(kinds *group, sparklet_bytes text) {
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
        group->texts = texts;
        group->room = room;
    }
    uint8_t *data = (uint8_t *)sparklet_alloc(text.len, 1);
    if (!data) return sparklet_fail("out of memory");
    __builtin_memcpy(data, text.data, text.len);
    for (uint32_t at = group->count; at > low; at--) group->texts[at] = group->texts[at - 1];
    group->texts[low].data = data;
    group->texts[low].len = text.len;
    group->count++;
    return 0;
}

SPARKLET_AGGREGATE(kinds, kinds, Int64, (List(Utf8)), Utf8)

SPARKLET_UPDATE(kinds) {
    return insert(group, sparklet_get_bytes(in, 0, row));
}

SPARKLET_MERGE(kinds) {
    sparklet_range texts = sparklet_get_list(in, 0, row);
    for (uint32_t at = texts.from; at < texts.to; at++) {
        if (insert(group, sparklet_col_bytes(texts.items, at)) < 0) return -1;
    }
    return 0;
}

SPARKLET_STATE(kinds) {
    for (uint32_t at = 0; at < group->count; at++) sparklet_push_bytes(&state[0].children[0], group->texts[at]);
    sparklet_push_list(&state[0]);
    return 0;
}

SPARKLET_EVALUATE(kinds) {
    sparklet_push_i64(result, group->count);
    return 0;
}

SPARKLET_FORGET(kinds) {
    for (uint32_t at = 0; at < group->count; at++) sparklet_free((void *)group->texts[at].data, group->texts[at].len, 1);
    sparklet_free(group->texts, group->room * sizeof(*group->texts), 8);
}
