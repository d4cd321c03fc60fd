/* The part of the CUDA runtime that has to answer something: memory is the host's, handles are numbers, work is done.
   No header of CUDA is needed: its handles are pointers, its enumerations ints, and of its structures only the few
   fields are written that are read before a kernel runs. What is not here answers "success" (see __init__.py). */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#define VERSION 13020 /* CUDA 13.2 */
#define BYTES (1ull << 34)

static void *next_handle(void) { static unsigned long last = 0x1000; return (void *)(last += 16); }
static int reserve(void **p, size_t n) { return posix_memalign(p, 512, n ? n : 1) ? 2 : 0; }

int cudaGetDevice(int *d) { *d = 0; return 0; }
int cudaGetDeviceCount(int *n) { *n = 1; return 0; }
int cudaDriverGetVersion(int *v) { *v = VERSION; return 0; }
int cudaRuntimeGetVersion(int *v) { *v = VERSION; return 0; }
int cudaMemGetInfo(size_t *free, size_t *total) { *free = *total = BYTES; return 0; }

/* cudaDevAttr…: WarpSize 10, MultiProcessorCount 16, ComputeCapabilityMajor 75 and Minor 76, SharedMemPerBlockOptin 97 */
int cudaDeviceGetAttribute(int *v, int name, int device) {
  *v = name == 10 ? 32 : name == 16 ? 84 : name == 75 ? 8 : name == 76 ? 6 : name == 97 ? 101376 : 1;
  return 0;
}

/* cudaDeviceProp of CUDA 13 begins: char name[256]; uuid, luid: 28 bytes and 4 of padding; then as below. */
struct properties {
  char name[288];
  size_t total_memory, shared_memory_a_block;
  int registers_a_block, warp_size;
  size_t memory_pitch;
  int threads_a_block, threads[3], grid[3];
  size_t constant_memory;
  int major, minor;
};
int cudaGetDeviceProperties(struct properties *p, int device) {
  memset(p, 0, sizeof *p); /* what follows is left as the caller initialised it */
  strcpy(p->name, "a pretended GPU");
  p->total_memory = BYTES, p->shared_memory_a_block = 49152, p->registers_a_block = 65536, p->warp_size = 32;
  p->threads_a_block = 1024, p->threads[0] = p->threads[1] = 1024, p->threads[2] = 64;
  p->grid[0] = 2147483647, p->grid[1] = p->grid[2] = 65535, p->major = 8, p->minor = 6;
  return 0;
}

int cudaMalloc(void **p, size_t n) { return reserve(p, n); }
int cudaMallocHost(void **p, size_t n) { return reserve(p, n); }
int cudaHostAlloc(void **p, size_t n, unsigned flags) { return reserve(p, n); }
int cudaMallocFromPoolAsync(void **p, size_t n, void *pool, void *stream) { return reserve(p, n); }
int cudaFree(void *p) { free(p); return 0; }
int cudaFreeHost(void *p) { free(p); return 0; }
int cudaFreeAsync(void *p, void *stream) { free(p); return 0; }
int cudaMemcpy(void *to, const void *from, size_t n, int kind) { memmove(to, from, n); return 0; }
int cudaMemcpyAsync(void *to, const void *from, size_t n, int kind, void *stream) { memmove(to, from, n); return 0; }
int cudaMemset(void *p, int value, size_t n) { memset(p, value, n); return 0; }
int cudaMemsetAsync(void *p, int value, size_t n, void *stream) { memset(p, value, n); return 0; }

#define HANDLE(name) int name(void **p) { *p = next_handle(); return 0; }
HANDLE(cudaEventCreate)
HANDLE(cudaEventCreateWithFlags)
HANDLE(cudaStreamCreate)
HANDLE(cudaStreamCreateWithFlags)
HANDLE(cudaMemPoolCreate)
HANDLE(cudaLibraryLoadData)
HANDLE(cudaLibraryGetKernel)
HANDLE(__cudaGetKernel)
HANDLE(cudaGraphInstantiate)

void **__cudaRegisterFatBinary(void *binary) { static void *registered; return &registered; }
const char *cudaGetErrorName(int error) { return "pretended"; }
const char *cudaGetErrorString(int error) { return "a pretended error"; }
