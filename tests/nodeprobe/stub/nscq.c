/*
 * A stand-in for libnvidia-nscq.so.2: the functions that nodeprobe calls, with the layouts of NVIDIA's public header
 * for attestation by NSCQ.
 *
 * Its state is the text file of nvml.c (NVML_STUB_STATE), read again on every call. Keys, with N a switch from 0 on and
 * WHAT one of uuid, arch, pcie_mode, certificate, attestation_report:
 *
 *   switches                   how many there are; they are listed in the order 0, 1, ..., which is not that of labels
 *   swN.byte                   the last byte of the UUID (default 0xF0 - N)
 *   swN.label                  text instead of SWX-<UUID>; 64 characters or more fill the label, without a NUL
 *   swN.arch .pcie_mode        numbers (2, 3)
 *   swN.report .chain          paths of files to replay
 *   swN.report_size .chain_size  sizes to claim instead of the true ones
 *   err.FUNCTION               code to return; err.create_null=1: success, but no session
 *   err.observe.WHAT           code that nscq_session_path_observe returns
 *   rc.WHAT[.N]                code that the callback gets
 *   calls.WHAT[.N]             how often the callback is called (1)
 *   stranger.WHAT.N            1: the callback is told of another device; 2: of none
 *   delay_ms.FUNCTION          how long the call takes
 *   nonces                     file to append each nonce to, in hex, when a report is asked for
 */
#define _GNU_SOURCE
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SUCCESS = 0, INVALID_UUID = -2, UNEXPECTED_VALUE = -5, DRIVER = -7 };

#define LINE_BYTES 4096
#define CHAIN_BYTES 0x1400
#define REPORT_BYTES 0x2000
#define NONCE_BYTES 32

struct uuid { uint8_t bytes[16]; };
struct label { char data[64]; };
struct session { uint32_t flags; int has_nonce; uint8_t nonce[NONCE_BYTES]; };
struct session_result { int8_t rc; struct session *session; };
struct report { uint32_t size; uint8_t report[REPORT_BYTES]; };
struct chain { uint8_t chain[CHAIN_BYTES]; uint32_t size; };

typedef void (*callback)(void);
typedef void (*uuid_callback)(const struct uuid *, int8_t, const struct uuid *, void *);
typedef void (*int8_callback)(const struct uuid *, int8_t, int8_t, void *);
typedef void (*chain_callback)(const struct uuid *, int8_t, const struct chain, void *);
typedef void (*report_callback)(const struct uuid *, int8_t, const struct report, void *);

/* Sizes and offsets as compiled. -1: no such name. */
long stubLayout(const char *name) {
    static const struct { const char *name; long value; } known[] = {
        {"Uuid", sizeof(struct uuid)},
        {"Label", sizeof(struct label)},
        {"SessionResult", sizeof(struct session_result)},
        {"SessionResult.session", offsetof(struct session_result, session)},
        {"Report", sizeof(struct report)},
        {"Report.report", offsetof(struct report, report)},
        {"Chain", sizeof(struct chain)},
        {"Chain.cert_chain_size", offsetof(struct chain, size)},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].name, name) == 0) return known[i].value;
    return -1;
}

/* --- state ------------------------------------------------------------------------------------------------------- */

static int look_up(const char *key, char *value) {
    const char *path = getenv("NVML_STUB_STATE");
    FILE *file = path ? fopen(path, "rb") : NULL;
    char line[LINE_BYTES];
    int found = 0;
    if (!file) return 0;
    while (!found && fgets(line, sizeof line, file)) {
        char *equals = strchr(line, '=');
        if (!equals) continue;
        *equals = 0;
        if (strcmp(line, key) != 0) continue;
        equals[1 + strcspn(equals + 1, "\n")] = 0;
        strcpy(value, equals + 1);
        found = 1;
    }
    fclose(file);
    return found;
}

static long number(const char *key, long fallback) {
    char value[LINE_BYTES];
    return look_up(key, value) ? strtol(value, NULL, 0) : fallback;
}

static long of_call(const char *what, const char *function, long fallback) {
    char key[160];
    snprintf(key, sizeof key, "%s.%s", what, function);
    return number(key, fallback);
}

static long of_answer(const char *what, const char *field, unsigned n, long fallback) {
    char key[160];
    snprintf(key, sizeof key, "%s.%s.%u", what, field, n);
    return number(key, of_call(what, field, fallback));
}

static int of_switch(unsigned n, const char *field, char *value) {
    char key[64];
    snprintf(key, sizeof key, "sw%u.%s", n, field);
    return look_up(key, value);
}

static long switch_number(unsigned n, const char *field, long fallback) {
    char value[LINE_BYTES];
    return of_switch(n, field, value) ? strtol(value, NULL, 0) : fallback;
}

static int8_t enter(const char *function) {
    long milliseconds = of_call("delay_ms", function, 0);
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
    while (milliseconds > 0 && nanosleep(&time, &time) != 0) {}
    return (int8_t)of_call("err", function, SUCCESS);
}

static struct uuid uuid_of(unsigned n) {
    struct uuid uuid = {{0x5a}};
    uuid.bytes[15] = (uint8_t)switch_number(n, "byte", 0xF0 - (long)n);
    return uuid;
}

static long replay(const char *path, uint8_t *out, size_t size) {
    FILE *file = fopen(path, "rb");
    if (!file) return -1;
    size_t length = fread(out, 1, size, file);
    fclose(file);
    return (long)length;
}

/* --- the library ------------------------------------------------------------------------------------------------- */

struct session_result nscq_session_create(uint32_t flags) {
    struct session_result result = {enter(__func__), NULL};
    if (result.rc < 0 || number("err.create_null", 0)) return result;
    result.session = calloc(1, sizeof *result.session);
    result.session->flags = flags;
    return result;
}

void nscq_session_destroy(struct session *session) {
    enter(__func__);
    free(session);
}

int8_t nscq_session_set_input(struct session *session, uint32_t flags, void *input, uint32_t size) {
    int8_t code = enter(__func__);
    if (code < 0) return code;
    if (flags != 0 || size != NONCE_BYTES) return UNEXPECTED_VALUE;
    memcpy(session->nonce, input, size);
    session->has_nonce = 1;
    return code;
}

int8_t nscq_uuid_to_label(const struct uuid *uuid, struct label *label, uint32_t flags) {
    char text[LINE_BYTES];
    int8_t code = enter(__func__);
    (void)flags;
    if (code < 0) return code;
    for (unsigned n = 0; n < (unsigned)number("switches", 0); n++) {
        struct uuid known = uuid_of(n);
        if (memcmp(&known, uuid, sizeof known) != 0) continue;
        if (!of_switch(n, "label", text)) snprintf(text, sizeof text, "SWX-5A000000-0000-0000-0000-0000000000%02X", uuid->bytes[15]);
        memset(label, 0, sizeof *label);
        size_t length = strlen(text);
        memcpy(label->data, text, length < sizeof *label ? length : sizeof *label);
        return code;
    }
    return INVALID_UUID;
}

static int8_t answer_chain(unsigned n, const struct uuid *device, int8_t rc, chain_callback call, void *data) {
    char path[LINE_BYTES];
    struct chain chain = {{0}, 0};
    long length = of_switch(n, "chain", path) ? replay(path, chain.chain, CHAIN_BYTES) : -1;
    if (length < 0) rc = DRIVER;
    chain.size = (uint32_t)switch_number(n, "chain_size", length);
    call(device, rc, chain, data);
    return SUCCESS;
}

static int8_t answer_report(struct session *session, unsigned n, const struct uuid *device, int8_t rc, report_callback call, void *data) {
    char path[LINE_BYTES];
    struct report report = {0, {0}};
    long length = of_switch(n, "report", path) ? replay(path, report.report, REPORT_BYTES) : -1;
    if (length < 0 || !session->has_nonce) rc = DRIVER;
    FILE *file = session->has_nonce && look_up("nonces", path) ? fopen(path, "a") : NULL;
    if (file) {
        for (int i = 0; i < NONCE_BYTES; i++) fprintf(file, "%02x", session->nonce[i]);
        fprintf(file, "\n");
        fclose(file);
    }
    session->has_nonce = 0; /* one report for each nonce that is handed in */
    report.size = (uint32_t)switch_number(n, "report_size", length);
    call(device, rc, report, data);
    return SUCCESS;
}

static void answer(struct session *session, const char *what, unsigned n, callback call, void *data) {
    struct uuid device = uuid_of(n), stranger = {{0xEE}};
    int8_t rc = (int8_t)of_answer("rc", what, n, SUCCESS);
    long odd = of_answer("stranger", what, n, 0);
    const struct uuid *told = odd == 2 ? NULL : odd == 1 ? &stranger : &device;
    if (strcmp(what, "uuid") == 0)
        ((uuid_callback)call)(NULL, rc, odd == 2 ? NULL : &device, data);
    else if (strcmp(what, "arch") == 0)
        ((int8_callback)call)(told, rc, (int8_t)switch_number(n, "arch", 2), data);
    else if (strcmp(what, "pcie_mode") == 0)
        ((int8_callback)call)(told, rc, (int8_t)switch_number(n, "pcie_mode", 3), data);
    else if (strcmp(what, "certificate") == 0)
        answer_chain(n, told, rc, (chain_callback)call, data);
    else
        answer_report(session, n, told, rc, (report_callback)call, data);
}

int8_t nscq_session_path_observe(struct session *session, const char *path, callback call, void *data, uint32_t flags) {
    int8_t code = enter(__func__);
    int known = 0;
    unsigned count = (unsigned)number("switches", 0);
    const char *what = strrchr(path, '/') + 1;
    if (code < 0) return code;
    if (session->flags != 1) return SUCCESS; /* no device is mounted, so nobody answers */
    if (flags != 0) return UNEXPECTED_VALUE;
    if ((code = (int8_t)of_call("err.observe", what, SUCCESS)) < 0) return code;
    int all = strcmp(path, "/drv/nvswitch/{device}/uuid") == 0 || strcmp(path, "/{nvswitch}/id/arch") == 0;
    for (unsigned n = 0; n < count; n++) {
        struct uuid uuid = uuid_of(n);
        struct label label = {{0}};
        char wanted[128];
        nscq_uuid_to_label(&uuid, &label, 0);
        snprintf(wanted, sizeof wanted, "/%.64s/config/%s", label.data, what);
        if (!all && strcmp(path, wanted) != 0) continue;
        known = 1;
        for (long calls = of_answer("calls", what, n, 1); calls > 0; calls--) answer(session, what, n, call, data);
    }
    return all || known ? code : UNEXPECTED_VALUE;
}
