#include "identity.h"

#include <string.h>

void identity_text(const struct gpu *gpu, const char *key, char *text, size_t size)
{
    settings_text(&gpu->identity, key, text, size);
}

struct pci_address identity_pci(const struct gpu *gpu)
{
    return (struct pci_address){.bus = settings_number(&gpu->identity, "pci_bus", 0)};
}

static unsigned char nibble_of(char c) { return c <= '9' ? c - '0' : c - 'a' + 10; }

void identity_uuid(const struct gpu *gpu, unsigned char bytes[static 16])
{
    char text[64];
    memset(bytes, 0, 16);
    identity_text(gpu, "uuid", text, sizeof text);
    const char *digits = strncmp(text, "GPU-", 4) == 0 ? text + 4 : text;
    for (int i = 0; i < 32 && *digits != '\0'; digits++)
        if (*digits != '-') {
            bytes[i / 2] = bytes[i / 2] << 4 | nibble_of(*digits);
            i++;
        }
}
