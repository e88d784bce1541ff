#define _GNU_SOURCE
#include "settings.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void settings_read(struct settings *settings, int folder_fd, const char *name)
{
    settings->text[0] = '\0';
    int fd = openat(folder_fd, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t length = pread(fd, settings->text, SETTINGS_MAX_BYTES - 1, 0);
    settings->text[length > 0 ? length : 0] = '\0';
    close(fd);
}

bool settings_text(const struct settings *settings, const char *key, char *value, size_t size)
{
    size_t key_length = strlen(key);
    for (const char *line = settings->text; *line != '\0';) {
        size_t length = strcspn(line, "\n");
        if (length > key_length && strncmp(line, key, key_length) == 0 && line[key_length] == '=') {
            snprintf(value, size, "%.*s", (int)(length - key_length - 1), line + key_length + 1);
            return true;
        }
        line += length + (line[length] == '\n');
    }
    value[0] = '\0';
    return false;
}

static int digit_of(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : 99;
}

/* By hand, not by strtoull: glibc 2.38 gives that a new symbol version, and the library is to load on older ones. */
uint64_t settings_number(const struct settings *settings, const char *key, uint64_t otherwise)
{
    char text[32];
    if (!settings_text(settings, key, text, sizeof text))
        return otherwise;
    bool hexadecimal = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    int base = hexadecimal ? 16 : 10;
    const char *digits = hexadecimal ? text + 2 : text;
    uint64_t number = 0;
    if (*digits == '\0')
        digits = "?";
    for (; *digits != '\0'; digits++) {
        int digit = digit_of(*digits);
        if (digit >= base) {
            fprintf(stderr, "simgpu: %s=%s is no number; expected decimal digits, or 0x and hexadecimal ones.\n", key,
                    text);
            abort();
        }
        number = number * base + digit;
    }
    return number;
}
