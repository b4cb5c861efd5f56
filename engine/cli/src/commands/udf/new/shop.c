#define SPARKLET_IMPLEMENTATION
#include "sparklet_udf.h"

/* In capitals, with an exclamation mark. */
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

/* The average of values by weight. */
typedef struct { double sum, weight; } wavg;

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

SPARKLET_FORGET(wavg) { (void)group; }
