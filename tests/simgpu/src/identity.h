/* What a GPU says of itself, from its `identity` file. */
#ifndef SIMGPU_IDENTITY_H
#define SIMGPU_IDENTITY_H

#include "gpu.h"

struct pci_address { unsigned int domain, bus, device; };

/* Key of the identity file, or an empty string. */
void identity_text(const struct gpu *gpu, const char *key, char *text, size_t size);

/* The PCI address: `pci_bus` of the identity file, in domain 0, device 0. */
struct pci_address identity_pci(const struct gpu *gpu);

/* The 16 bytes of the UUID `GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`. */
void identity_uuid(const struct gpu *gpu, unsigned char bytes[static 16]);

#endif
