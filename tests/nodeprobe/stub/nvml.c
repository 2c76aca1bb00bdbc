/*
 * A stand-in for the driver's libnvidia-ml.so.1: the functions that nodeprobe calls, with the layouts of nvml.h.
 *
 * Its state is the text file that NVML_STUB_STATE names, read again on every call: one `key=value` a line, the first
 * line of a key counts, and what is not said has the default below (one healthy H100 in CC mode). Keys:
 *
 *   count driver cc devtools environment multi_gpu ready cpu_caps      numbers; driver is text
 *   gpuN.name .uuid .serial .vbios .bus                                text; an overlong one fills its buffer, no NUL
 *   gpuN.memory_mib .arch .mig .nvlinks .lost                          numbers
 *   gpuN.report .chain                                                 paths of files to replay
 *   gpuN.report_size .chain_size                                       sizes to claim instead of the true ones
 *   gpuN.socket                                                        Unix socket of a live signer: 32-byte nonce in,
 *                                                                      u32 LE length and the report out
 *   err.<function>[.<gpu>]                                             code to return
 *   delay_ms.<function>[.<gpu>]                                        how long the call takes
 *   exit_delay_ms                                                      how long the library's own clean-up takes
 *   log                                                                file to append "function gpu thread" to
 */
#define _GNU_SOURCE
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, GPU_IS_LOST = 15, OPERATING_SYSTEM = 17, VERSION_MISMATCH = 25 };

#define NOBODY (-1L)
#define LINE_BYTES 4096
#define REPORT_BYTES 8192
#define CHAIN_BYTES 5120

struct memory { unsigned long long total, free, used; };
struct pci { char legacy_bus_id[16]; unsigned domain, bus, device, device_id, subsystem_id; char bus_id[32]; };
struct cc_state { unsigned environment, feature, devtools; };
struct cc_settings { unsigned version, environment, feature, devtools, multi_gpu; };
struct cc_caps { unsigned cpu, gpus; };
struct certificate {
    unsigned chain_size, attestation_chain_size;
    unsigned char chain[4096], attestation_chain[CHAIN_BYTES];
};
struct report {
    unsigned cec_present, size, cec_size;
    unsigned char nonce[32], report[REPORT_BYTES], cec[4096];
};

/* Sizes and offsets as compiled, so that a test can compare them with nvidia-ml-py's. -1: no such name. */
long stubLayout(const char *name) {
    static const struct { const char *name; long value; } known[] = {
        {"nvmlMemory_t", sizeof(struct memory)},
        {"nvmlPciInfo_t", sizeof(struct pci)},
        {"nvmlPciInfo_t.busId", offsetof(struct pci, bus_id)},
        {"nvmlConfComputeSystemState_t", sizeof(struct cc_state)},
        {"nvmlConfComputeSystemState_t.devToolsMode", offsetof(struct cc_state, devtools)},
        {"nvmlSystemConfComputeSettings_v1_t", sizeof(struct cc_settings)},
        {"nvmlSystemConfComputeSettings_v1_t.multiGpuMode", offsetof(struct cc_settings, multi_gpu)},
        {"nvmlConfComputeSystemCaps_t", sizeof(struct cc_caps)},
        {"nvmlConfComputeGpuCertificate_t", sizeof(struct certificate)},
        {"nvmlConfComputeGpuCertificate_t.attestationCertChain", offsetof(struct certificate, attestation_chain)},
        {"nvmlConfComputeGpuAttestationReport_t", sizeof(struct report)},
        {"nvmlConfComputeGpuAttestationReport_t.nonce", offsetof(struct report, nonce)},
        {"nvmlConfComputeGpuAttestationReport_t.attestationReport", offsetof(struct report, report)},
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

static const char *of_gpu(char *key, unsigned gpu, const char *field) {
    snprintf(key, 64, "gpu%u.%s", gpu, field);
    return key;
}

static long gpu_number(unsigned gpu, const char *field, long fallback) {
    char key[64];
    return number(of_gpu(key, gpu, field), fallback);
}

static int gpu_look_up(unsigned gpu, const char *field, char *value) {
    char key[64];
    return look_up(of_gpu(key, gpu, field), value);
}

static long of_call(const char *what, const char *function, long gpu, long fallback) {
    char key[160];
    snprintf(key, sizeof key, "%s.%s", what, function);
    long value = number(key, fallback);
    if (gpu == NOBODY) return value;
    snprintf(key, sizeof key, "%s.%s.%ld", what, function, gpu);
    return number(key, value);
}

static void rest(long milliseconds) {
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
    while (milliseconds > 0 && nanosleep(&time, &time) != 0) {}
}

/* What every call begins with: log, delay, injected error, lost GPU. */
static int enter(const char *function, long gpu) {
    char path[LINE_BYTES];
    if (look_up("log", path)) {
        FILE *file = fopen(path, "a");
        if (file) {
            fprintf(file, "%s %ld %ld\n", function, gpu, (long)syscall(SYS_gettid));
            fclose(file);
        }
    }
    rest(of_call("delay_ms", function, gpu, 0));
    if (gpu != NOBODY && gpu_number((unsigned)gpu, "lost", 0)) return GPU_IS_LOST;
    return (int)of_call("err", function, gpu, SUCCESS);
}

#define ENTER(gpu) do { int code = enter(__func__, gpu); if (code != SUCCESS) return code; } while (0)
#define GPU(handle) ((unsigned)((uintptr_t)(handle) - 1))
#define ENTER_GPU(handle) ENTER((long)GPU(handle))

static void fill(char *out, unsigned size, const char *text) {
    size_t length = strlen(text);
    memset(out, 0, size);
    memcpy(out, text, length < size ? length : size);
}

static int gpu_text(unsigned gpu, const char *field, const char *fallback, char *out, unsigned size) {
    char value[LINE_BYTES];
    fill(out, size, gpu_look_up(gpu, field, value) ? value : fallback);
    return SUCCESS;
}

__attribute__((destructor)) static void clean_up(void) { rest(number("exit_delay_ms", 0)); }

/* --- the system -------------------------------------------------------------------------------------------------- */

int nvmlInitWithFlags(unsigned flags) { (void)flags; ENTER(NOBODY); return SUCCESS; }
int nvmlShutdown(void) { ENTER(NOBODY); return SUCCESS; }
const char *nvmlErrorString(int code) { (void)code; rest(of_call("delay_ms", __func__, NOBODY, 0)); return "stub error"; }

int nvmlSystemGetDriverVersion(char *out, unsigned size) {
    char value[LINE_BYTES];
    ENTER(NOBODY);
    fill(out, size, look_up("driver", value) ? value : "550.90.07");
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *count) { ENTER(NOBODY); *count = (unsigned)number("count", 1); return SUCCESS; }

int nvmlSystemGetConfComputeState(struct cc_state *state) {
    ENTER(NOBODY);
    state->environment = (unsigned)number("environment", 2);
    state->feature = (unsigned)number("cc", 1);
    state->devtools = (unsigned)number("devtools", 0);
    return SUCCESS;
}

int nvmlSystemGetConfComputeSettings(struct cc_settings *settings) {
    ENTER(NOBODY);
    if (settings->version != 0x01000014) return VERSION_MISMATCH;
    settings->environment = (unsigned)number("environment", 2);
    settings->feature = (unsigned)number("cc", 1);
    settings->devtools = (unsigned)number("devtools", 0);
    settings->multi_gpu = (unsigned)number("multi_gpu", 0);
    return SUCCESS;
}

int nvmlSystemGetConfComputeCapabilities(struct cc_caps *caps) {
    ENTER(NOBODY);
    caps->cpu = (unsigned)number("cpu_caps", 2);
    caps->gpus = 1;
    return SUCCESS;
}

int nvmlSystemGetConfComputeGpusReadyState(unsigned *ready) { ENTER(NOBODY); *ready = (unsigned)number("ready", 1); return SUCCESS; }

/* --- a GPU ------------------------------------------------------------------------------------------------------- */

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    ENTER((long)index);
    if ((long)index >= number("count", 1)) return INVALID_ARGUMENT;
    *handle = (void *)(uintptr_t)(index + 1);
    return SUCCESS;
}

int nvmlDeviceGetName(void *handle, char *out, unsigned size) {
    ENTER_GPU(handle);
    return gpu_text(GPU(handle), "name", "NVIDIA H100 80GB HBM3", out, size);
}

int nvmlDeviceGetUUID(void *handle, char *out, unsigned size) {
    char fallback[48];
    ENTER_GPU(handle);
    snprintf(fallback, sizeof fallback, "GPU-00000000-0000-4000-8000-%012x", GPU(handle));
    return gpu_text(GPU(handle), "uuid", fallback, out, size);
}

int nvmlDeviceGetSerial(void *handle, char *out, unsigned size) {
    char fallback[16];
    ENTER_GPU(handle);
    snprintf(fallback, sizeof fallback, "16500000%05u", GPU(handle));
    return gpu_text(GPU(handle), "serial", fallback, out, size);
}

int nvmlDeviceGetVbiosVersion(void *handle, char *out, unsigned size) {
    ENTER_GPU(handle);
    return gpu_text(GPU(handle), "vbios", "96.00.88.00.11", out, size);
}

int nvmlDeviceGetPciInfo_v3(void *handle, struct pci *pci) {
    char fallback[20];
    ENTER_GPU(handle);
    memset(pci, 0, sizeof *pci);
    pci->bus = 0x10 + GPU(handle);
    snprintf(fallback, sizeof fallback, "00000000:%02X:00.0", pci->bus);
    return gpu_text(GPU(handle), "bus", fallback, pci->bus_id, sizeof pci->bus_id);
}

int nvmlDeviceGetMemoryInfo(void *handle, struct memory *memory) {
    ENTER_GPU(handle);
    memory->total = (unsigned long long)gpu_number(GPU(handle), "memory_mib", 81559) << 20;
    memory->used = 1 << 20;
    memory->free = memory->total - memory->used;
    return SUCCESS;
}

int nvmlDeviceGetArchitecture(void *handle, unsigned *architecture) {
    ENTER_GPU(handle);
    *architecture = (unsigned)gpu_number(GPU(handle), "arch", 9);
    return SUCCESS;
}

int nvmlDeviceGetMigMode(void *handle, unsigned *current, unsigned *pending) {
    ENTER_GPU(handle);
    *current = *pending = (unsigned)gpu_number(GPU(handle), "mig", 0);
    return SUCCESS;
}

int nvmlDeviceGetNvLinkState(void *handle, unsigned link, unsigned *active) {
    ENTER_GPU(handle);
    if (link >= 18) return INVALID_ARGUMENT;
    *active = (long)link < gpu_number(GPU(handle), "nvlinks", 18);
    return SUCCESS;
}

/* --- evidence ---------------------------------------------------------------------------------------------------- */

static int protected_mode(void) { return number("cc", 1) != 0 || number("multi_gpu", 0) != 0; }

static long replay(const char *path, unsigned char *out, size_t size) {
    FILE *file = fopen(path, "rb");
    if (!file) return -1;
    size_t length = fread(out, 1, size, file);
    fclose(file);
    return (long)length;
}

static int transfer(int fd, unsigned char *data, size_t size, int sending) {
    for (size_t done = 0; done < size;) {
        ssize_t moved = sending ? send(fd, data + done, size - done, MSG_NOSIGNAL) : recv(fd, data + done, size - done, 0);
        if (moved <= 0) return 0;
        done += (size_t)moved;
    }
    return 1;
}

static long ask_signer(const char *path, unsigned char *nonce, unsigned char *out, size_t size) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    unsigned char head[4];
    long length = -1;
    int fd = strlen(path) < sizeof address.sun_path ? socket(AF_UNIX, SOCK_STREAM, 0) : -1;
    if (fd < 0) return -1;
    strcpy(address.sun_path, path);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0 && transfer(fd, nonce, 32, 1) && transfer(fd, head, 4, 0)) {
        size_t wanted = head[0] | head[1] << 8 | head[2] << 16 | (size_t)head[3] << 24;
        if (wanted <= size && transfer(fd, out, wanted, 0)) length = (long)wanted;
    }
    close(fd);
    return length;
}

int nvmlDeviceGetConfComputeGpuCertificate(void *handle, struct certificate *certificate) {
    char path[LINE_BYTES];
    ENTER_GPU(handle);
    if (!protected_mode() || !gpu_look_up(GPU(handle), "chain", path)) return NOT_SUPPORTED;
    memset(certificate, 0, sizeof *certificate);
    long length = replay(path, certificate->attestation_chain, CHAIN_BYTES - 1);
    if (length < 0) return OPERATING_SYSTEM;
    /* The real driver counts the NUL after the text. */
    certificate->attestation_chain_size = (unsigned)gpu_number(GPU(handle), "chain_size", length + 1);
    return SUCCESS;
}

int nvmlDeviceGetConfComputeGpuAttestationReport(void *handle, struct report *report) {
    char path[LINE_BYTES];
    long length;
    ENTER_GPU(handle);
    if (!protected_mode()) return NOT_SUPPORTED;
    if (gpu_look_up(GPU(handle), "socket", path))
        length = ask_signer(path, report->nonce, report->report, REPORT_BYTES);
    else if (gpu_look_up(GPU(handle), "report", path))
        length = replay(path, report->report, REPORT_BYTES);
    else
        return NOT_SUPPORTED;
    if (length < 0) return OPERATING_SYSTEM;
    report->size = (unsigned)gpu_number(GPU(handle), "report_size", length);
    return SUCCESS;
}
