/* Flat text files of `key=value` lines: a GPU's `identity`, and its `faults` that a test writes.
 *
 * 1. Empty lines and lines that begin with # are skipped; spaces around keys and values are not.
 * 2. A missing file is an empty one.
 * 3. A file is read again at each call that needs it, so that a test can change it under a running client. Writers
 *    replace it by rename. */
#ifndef SIMGPU_SETTINGS_H
#define SIMGPU_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SETTINGS_MAX_BYTES = 4096 };

struct settings { char text[SETTINGS_MAX_BYTES]; };

/* Read `name` below the folder that `folder_fd` is open on. */
void settings_read(struct settings *settings, int folder_fd, const char *name);

/* The value of `key`, copied into `value`; false, and an empty value, when there is no such key. */
bool settings_text(const struct settings *settings, const char *key, char *value, size_t size);

/* The number of `key`, decimal or 0x..., or `otherwise` when there is no such key; no number ends the process. */
uint64_t settings_number(const struct settings *settings, const char *key, uint64_t otherwise);

#endif
