/* What sparklet_udf.h declares. Included by it, once in a module. */

#ifdef __cplusplus
extern "C" {
#endif

/* The compiler makes calls to these of plain loops and copies; a C library's own come first. */
__attribute__((weak, no_builtin)) void *memcpy(void *to, const void *from, size_t n) {
    uint8_t *t = (uint8_t *)to;
    const uint8_t *f = (const uint8_t *)from;
    typedef uint64_t __attribute__((aligned(1), may_alias)) word;
    for (; n >= 8; n -= 8, t += 8, f += 8) *(word *)t = *(const word *)f;
    while (n--) *t++ = *f++;
    return to;
}

__attribute__((weak, no_builtin)) void *memmove(void *to, const void *from, size_t n) {
    uint8_t *t = (uint8_t *)to;
    const uint8_t *f = (const uint8_t *)from;
    if (t <= f) {
        while (n--) *t++ = *f++;
    } else {
        while (n--) t[n] = f[n];
    }
    return to;
}

__attribute__((weak, no_builtin)) void *memset(void *to, int byte, size_t n) {
    uint8_t *t = (uint8_t *)to;
    while (n--) *t++ = (uint8_t)byte;
    return to;
}

__attribute__((weak, no_builtin)) int memcmp(const void *a, const void *b, size_t n) {
    const uint8_t *x = (const uint8_t *)a, *y = (const uint8_t *)b;
    for (; n--; x++, y++) {
        if (*x != *y) return *x - *y;
    }
    return 0;
}

SPARKLET_EXPORT_("sparklet_abi") int32_t sparklet_abi(void) {
    return 0x00010000;
}

/* ---- memory: blocks of a power of two, one list of free ones for each size, cut from pages of our own ---- */

static uint32_t sparklet_free_lists_[32];
static uint32_t sparklet_pages_at_, sparklet_pages_end_;

static uint32_t sparklet_class_(uint32_t size) {
    return size <= 64 ? 6 : 32 - (uint32_t)__builtin_clz(size - 1);
}

SPARKLET_EXPORT_("sparklet_alloc") void *sparklet_alloc(uint32_t size, uint32_t align) {
    (void)align;
    if (size > 1u << 30) return 0;
    uint32_t of = sparklet_class_(size), bytes = 1u << of;
    uint32_t at = sparklet_free_lists_[of];
    if (at) {
        sparklet_free_lists_[of] = *(uint32_t *)(uintptr_t)at;
        return (void *)(uintptr_t)at;
    }
    if (sparklet_pages_end_ - sparklet_pages_at_ < bytes) {
        uint32_t pages = (bytes + 65535) / 65536;
        uint32_t grown = (uint32_t)__builtin_wasm_memory_grow(0, pages);
        if (grown == UINT32_MAX) return 0;
        if (grown * 65536 != sparklet_pages_end_) sparklet_pages_at_ = grown * 65536;
        sparklet_pages_end_ = grown * 65536 + pages * 65536;
    }
    at = sparklet_pages_at_;
    sparklet_pages_at_ += bytes;
    return (void *)(uintptr_t)at;
}

SPARKLET_EXPORT_("sparklet_free") void sparklet_free(void *at, uint32_t size, uint32_t align) {
    (void)align;
    if (!at) return;
    uint32_t of = sparklet_class_(size);
    *(uint32_t *)at = sparklet_free_lists_[of];
    sparklet_free_lists_[of] = (uint32_t)(uintptr_t)at;
}

/* Scratch memory is cut from chunks, all of which are freed when the next call begins. */
typedef struct sparklet_chunk_ {
    struct sparklet_chunk_ *next;
    uint32_t size, used;
} sparklet_chunk_;

static sparklet_chunk_ *sparklet_chunks_;

void *sparklet_scratch(uint32_t size) {
    sparklet_chunk_ *chunk = sparklet_chunks_;
    size = (size + 15) & ~15u;
    if (!chunk || chunk->size - chunk->used < size) {
        uint32_t bytes = size + 64 > 65536 ? size + 64 : 65536;
        chunk = (sparklet_chunk_ *)sparklet_alloc(bytes, 64);
        if (!chunk) __builtin_trap();
        chunk->next = sparklet_chunks_;
        chunk->size = 1u << sparklet_class_(bytes);
        chunk->used = 64;
        sparklet_chunks_ = chunk;
    }
    void *at = (uint8_t *)chunk + chunk->used;
    chunk->used += size;
    return at;
}

SPARKLET_EXPORT_("sparklet_end_call") void sparklet_end_call_(void) {
    while (sparklet_chunks_) {
        sparklet_chunk_ *chunk = sparklet_chunks_;
        sparklet_chunks_ = chunk->next;
        sparklet_free(chunk, chunk->size, 64);
    }
}

/* ---- errors ---- */

static const char *sparklet_message_ = "";
static int64_t sparklet_message_row_ = -1;

void sparklet_begin_(void) {
    sparklet_end_call_();
    sparklet_message_ = "";
    sparklet_message_row_ = -1;
}

int32_t sparklet_fail(const char *message) {
    sparklet_message_ = message;
    return -1;
}

int32_t sparklet_fail_at(const char *message, uint32_t row) {
    sparklet_message_row_ = row;
    return sparklet_fail(message);
}

int32_t sparklet_failed_at_(uint32_t row) {
    if (sparklet_message_row_ < 0) sparklet_message_row_ = row;
    return -1;
}

SPARKLET_EXPORT_("sparklet_error") int64_t sparklet_error_(void) {
    uint32_t len = 0;
    while (sparklet_message_[len]) len++;
    return (int64_t)((uint64_t)(uintptr_t)sparklet_message_ << 32 | len);
}

SPARKLET_EXPORT_("sparklet_error_row") int64_t sparklet_error_row_(void) {
    return sparklet_message_row_;
}

/* ---- writers ---- */

__attribute__((noinline)) void sparklet_grow(sparklet_buffer *buffer, uint32_t more) {
    uint32_t wanted = buffer->len + more;
    if (wanted < more) __builtin_trap();
    if (wanted <= buffer->capacity) return;
    uint32_t capacity = 1u << sparklet_class_(wanted);
    uint8_t *data = (uint8_t *)sparklet_scratch(capacity);
    if (buffer->len) memcpy(data, buffer->data, buffer->len);
    buffer->data = data;
    buffer->capacity = capacity;
}

static uint64_t sparklet_place_(const sparklet_buffer *buffer) {
    return (uint64_t)buffer->capacity << 32 | (uint32_t)(uintptr_t)buffer->data;
}

__attribute__((noinline)) uint64_t sparklet_grown_(uint8_t *data, uint32_t len, uint32_t capacity, uint32_t more) {
    sparklet_buffer buffer = {data, len, capacity};
    sparklet_grow(&buffer, more);
    return sparklet_place_(&buffer);
}

static uint32_t sparklet_width_(uint32_t type) {
    switch (type) {
        case SPARKLET_INT8: case SPARKLET_UINT8: return 1;
        case SPARKLET_INT16: case SPARKLET_UINT16: return 2;
        case SPARKLET_INT32: case SPARKLET_UINT32: case SPARKLET_FLOAT32: case SPARKLET_DATE32: return 4;
        case SPARKLET_INT64: case SPARKLET_UINT64: case SPARKLET_FLOAT64: case SPARKLET_TIMESTAMP: case SPARKLET_DURATION: return 8;
        case SPARKLET_DECIMAL128: return 16;
        default: return 0;
    }
}

static bool sparklet_word_(const char **text, const char *word) {
    const char *at = *text;
    while (*at == ' ') at++;
    while (*word) {
        if (*at++ != *word++) return false;
    }
    *text = at;
    return true;
}

static uint32_t sparklet_number_(const char **text) {
    bool negative = sparklet_word_(text, "-");
    uint32_t number = 0;
    sparklet_word_(text, "");
    for (; **text >= '0' && **text <= '9'; (*text)++) number = number * 10 + (uint32_t)(**text - '0');
    return negative ? 0 - number : number;
}

static uint32_t sparklet_unit_(const char **text) {
    return sparklet_word_(text, "s") ? 0 : sparklet_word_(text, "ms") ? 1 : sparklet_word_(text, "us") ? 2 : (sparklet_word_(text, "ns"), 3);
}

/* Longer names come before those that they begin with. */
static const struct { const char *name; uint32_t type; } sparklet_type_names_[] = {
    {"Boolean", SPARKLET_BOOLEAN}, {"Int8", SPARKLET_INT8}, {"Int16", SPARKLET_INT16}, {"Int32", SPARKLET_INT32},
    {"Int64", SPARKLET_INT64}, {"UInt8", SPARKLET_UINT8}, {"UInt16", SPARKLET_UINT16}, {"UInt32", SPARKLET_UINT32},
    {"UInt64", SPARKLET_UINT64}, {"Float32", SPARKLET_FLOAT32}, {"Float64", SPARKLET_FLOAT64}, {"Utf8", SPARKLET_UTF8},
    {"Binary", SPARKLET_BINARY}, {"Decimal128", SPARKLET_DECIMAL128}, {"Date32", SPARKLET_DATE32},
    {"Timestamp", SPARKLET_TIMESTAMP}, {"Duration", SPARKLET_DURATION}, {"List", SPARKLET_LIST}, {"Struct", SPARKLET_STRUCT},
};

static sparklet_writer sparklet_parse_(const char **text, uint32_t rows) {
    sparklet_writer writer;
    memset(&writer, 0, sizeof(writer));
    for (uint32_t at = 0; at < sizeof(sparklet_type_names_) / sizeof(sparklet_type_names_[0]) && !writer.type; at++) {
        if (sparklet_word_(text, sparklet_type_names_[at].name)) writer.type = sparklet_type_names_[at].type;
    }
    if (!writer.type) __builtin_trap();
    bool open = sparklet_word_(text, "(");
    switch (writer.type) {
        case SPARKLET_DECIMAL128:
            writer.p0 = sparklet_number_(text);
            sparklet_word_(text, ",");
            writer.p1 = sparklet_number_(text);
            break;
        case SPARKLET_TIMESTAMP:
        case SPARKLET_DURATION:
            writer.p0 = sparklet_unit_(text);
            if (sparklet_word_(text, ",")) writer.p1 = sparklet_word_(text, "UTC");
            break;
        case SPARKLET_LIST:
            writer.children = (sparklet_writer *)sparklet_scratch(sizeof(sparklet_writer));
            writer.children[0] = sparklet_parse_(text, rows);
            writer.nchildren = 1;
            break;
        case SPARKLET_STRUCT:
            writer.children = (sparklet_writer *)sparklet_scratch(16 * sizeof(sparklet_writer));
            do {
                if (writer.nchildren == 16) __builtin_trap();
                while (*(*text)++ != ':') {
                }
                writer.children[writer.nchildren++] = sparklet_parse_(text, rows);
            } while (sparklet_word_(text, ","));
            break;
        default:
            break;
    }
    if (open) sparklet_word_(text, ")");
    if (writer.type == SPARKLET_UTF8 || writer.type == SPARKLET_BINARY || writer.type == SPARKLET_LIST) {
        sparklet_grow(&writer.values, (rows + 1) * 4);
        *(int32_t *)(void *)writer.values.data = 0;
        writer.values.len = 4;
    } else {
        sparklet_grow(&writer.values, writer.type == SPARKLET_BOOLEAN ? rows / 8 + 1 : rows * sparklet_width_(writer.type));
    }
    return writer;
}

sparklet_writer sparklet_write(const char *type, uint32_t rows) {
    return sparklet_parse_(&type, rows);
}

sparklet_writer *sparklet_writers_(const char *const *types, uint32_t count, uint32_t rows) {
    sparklet_writer *writers = (sparklet_writer *)sparklet_scratch(count * sizeof(sparklet_writer));
    for (uint32_t at = 0; at < count; at++) writers[at] = sparklet_write(types[at], rows);
    return writers;
}

static void sparklet_push_bit_(sparklet_buffer *bits, uint32_t at, bool bit) {
    if (at / 8 >= bits->len) {
        sparklet_grow(bits, 1);
        bits->data[bits->len++] = 0;
    }
    if (bit) bits->data[at / 8] |= (uint8_t)(1u << at % 8);
}

uint64_t sparklet_with_bit_(uint8_t *data, uint32_t len, uint32_t capacity, uint32_t at, bool bit) {
    sparklet_buffer bits = {data, len, capacity};
    sparklet_push_bit_(&bits, at, bit);
    return sparklet_place_(&bits);
}

void sparklet_valid(sparklet_writer *writer, bool valid) {
    if (!valid && !writer->nulls) {
        for (uint32_t row = 0; row < writer->rows; row++) sparklet_push_bit_(&writer->validity, row, true);
    }
    if (!valid) writer->nulls++;
    if (writer->nulls) sparklet_push_bit_(&writer->validity, writer->rows, valid);
}

static void sparklet_push_offset_(sparklet_writer *writer, uint32_t offset) {
    sparklet_grow(&writer->values, 4);
    *(uint32_t *)(void *)(writer->values.data + writer->values.len) = offset;
    writer->values.len += 4;
}

void sparklet_push_null(sparklet_writer *writer) {
    sparklet_valid(writer, false);
    switch (writer->type) {
        case SPARKLET_BOOLEAN: sparklet_push_bit_(&writer->values, writer->rows, false); break;
        case SPARKLET_UTF8: case SPARKLET_BINARY: sparklet_push_offset_(writer, writer->data.len); break;
        case SPARKLET_LIST: sparklet_push_offset_(writer, writer->children[0].rows); break;
        case SPARKLET_STRUCT:
            for (uint32_t at = 0; at < writer->nchildren; at++) sparklet_push_null(&writer->children[at]);
            break;
        default: {
            uint32_t width = sparklet_width_(writer->type);
            sparklet_grow(&writer->values, width);
            memset(writer->values.data + writer->values.len, 0, width);
            writer->values.len += width;
        }
    }
    writer->rows++;
}

void sparklet_push_bool(sparklet_writer *writer, bool value) {
    sparklet_push_bit_(&writer->values, writer->rows, value);
    sparklet_valid(writer, true);
    writer->rows++;
}

uint8_t *sparklet_push_room(sparklet_writer *writer, uint32_t len) {
    sparklet_grow(&writer->data, len);
    uint8_t *room = writer->data.data + writer->data.len;
    writer->data.len += len;
    sparklet_push_offset_(writer, writer->data.len);
    sparklet_valid(writer, true);
    writer->rows++;
    return room;
}

void sparklet_push_bytes(sparklet_writer *writer, sparklet_bytes value) {
    uint8_t *room = sparklet_push_room(writer, value.len);
    if (value.len) memcpy(room, value.data, value.len);
}

void sparklet_push_list(sparklet_writer *writer) {
    sparklet_push_offset_(writer, writer->children[0].rows);
    sparklet_valid(writer, true);
    writer->rows++;
}

void sparklet_push_struct(sparklet_writer *writer) {
    sparklet_valid(writer, true);
    writer->rows++;
}

void sparklet_finish(sparklet_writer *writer, sparklet_col *out) {
    memset(out, 0, sizeof(*out));
    out->type = writer->type;
    out->p0 = writer->p0;
    out->p1 = writer->p1;
    out->null_count = writer->nulls;
    if (writer->nulls) out->validity = (uint32_t)(uintptr_t)writer->validity.data;
    if (writer->type != SPARKLET_STRUCT) {
        out->buf0 = (uint32_t)(uintptr_t)writer->values.data;
        out->len0 = writer->values.len;
    }
    if (writer->data.len) {
        out->buf1 = (uint32_t)(uintptr_t)writer->data.data;
        out->len1 = writer->data.len;
    }
    if (writer->nchildren) {
        sparklet_col *children = (sparklet_col *)sparklet_scratch(writer->nchildren * sizeof(sparklet_col));
        for (uint32_t at = 0; at < writer->nchildren; at++) sparklet_finish(&writer->children[at], &children[at]);
        out->nchildren = writer->nchildren;
        out->children = (uint32_t)(uintptr_t)children;
    }
}

void sparklet_finish_batch_(sparklet_writer *writers, uint32_t count, uint32_t rows, sparklet_batch *out) {
    sparklet_col *cols = (sparklet_col *)sparklet_scratch(count * sizeof(sparklet_col));
    for (uint32_t at = 0; at < count; at++) sparklet_finish(&writers[at], &cols[at]);
    out->rows = rows;
    out->ncols = count;
    out->cols = (uint32_t)(uintptr_t)cols;
    out->flags = 0;
}

void *sparklet_fixed(sparklet_col *out, uint32_t type, uint32_t rows, uint32_t width) {
    memset(out, 0, sizeof(*out));
    void *values = sparklet_scratch(rows * width);
    out->type = type;
    out->buf0 = (uint32_t)(uintptr_t)values;
    out->len0 = rows * width;
    return values;
}

/* ---- groups ---- */

typedef struct sparklet_groups_all_ {
    uint8_t *groups;
    uint32_t count, bytes, held;
} sparklet_groups_all_;

static sparklet_groups_all_ *sparklet_updated_;

void sparklet_holds(int32_t bytes) {
    if (sparklet_updated_) sparklet_updated_->held += (uint32_t)bytes;
}

void *sparklet_groups_new_(void) {
    sparklet_groups_all_ *all = (sparklet_groups_all_ *)sparklet_alloc(sizeof(sparklet_groups_all_), 64);
    if (all) memset(all, 0, sizeof(*all));
    return all;
}

void *sparklet_groups_(void *handle, uint32_t ngroups, uint32_t width) {
    sparklet_groups_all_ *all = (sparklet_groups_all_ *)handle;
    sparklet_updated_ = all;
    if (ngroups > all->count) {
        uint32_t wanted = ngroups * width;
        if (wanted > all->bytes) {
            uint32_t bytes = 1u << sparklet_class_(wanted);
            uint8_t *groups = (uint8_t *)sparklet_alloc(bytes, 64);
            if (!groups) return 0;
            if (all->count) memcpy(groups, all->groups, all->count * width);
            sparklet_free(all->groups, all->bytes, 64);
            all->groups = groups;
            all->bytes = bytes;
        }
        memset(all->groups + all->count * width, 0, (ngroups - all->count) * width);
        all->count = ngroups;
    }
    return all->groups;
}

uint32_t sparklet_groups_count_(void *handle) {
    return ((sparklet_groups_all_ *)handle)->count;
}

void sparklet_groups_forget_(void *handle, uint32_t n, uint32_t width) {
    sparklet_groups_all_ *all = (sparklet_groups_all_ *)handle;
    if (n < all->count) memmove(all->groups, all->groups + n * width, (all->count - n) * width);
    all->count -= n;
}

uint32_t sparklet_groups_size_(void *handle, uint32_t width) {
    (void)width;
    sparklet_groups_all_ *all = (sparklet_groups_all_ *)handle;
    return (uint32_t)sizeof(*all) + all->bytes + all->held;
}

void sparklet_groups_drop_(void *handle, uint32_t width) {
    (void)width;
    sparklet_groups_all_ *all = (sparklet_groups_all_ *)handle;
    sparklet_free(all->groups, all->bytes, 64);
    sparklet_updated_ = 0;
    sparklet_free(all, sizeof(*all), 64);
}

#ifdef __cplusplus
}
#endif
