/* What one thumbnail costs libvips in a warm process: vips FILE WIDTH HEIGHT scale|crop SUFFIX COUNT [OUT]
 *
 * The same work and the same line of JSON as thumbnail.rs; SUFFIX chooses the encoder, such as `.jpg[Q=75,strip]`.
 * One thread, which takes libvips less CPU than two, and no cache of results. Built by thumbnails.sh. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <vips/vips.h>

static double milliseconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

static void *thumbnail(char **arguments, size_t *length)
{
    VipsImage *image;
    void *bytes;
    VipsInteresting crop =
        strcmp(arguments[4], "crop") ? VIPS_INTERESTING_NONE : VIPS_INTERESTING_CENTRE;
    if (vips_thumbnail(arguments[1], &image, atoi(arguments[2]), "height", atoi(arguments[3]),
            "crop", crop, NULL) ||
        vips_image_write_to_buffer(image, arguments[5], &bytes, length, NULL))
        vips_error_exit(NULL);
    g_object_unref(image);
    return bytes;
}

/* Not by getrusage, which counts the parent of a fresh process, too. */
static double peak_mib(void)
{
    FILE *status = fopen("/proc/self/status", "r");
    char line[256];
    long kib = 0;
    while (status && fgets(line, sizeof line, status))
        if (sscanf(line, "VmHWM: %ld", &kib) == 1)
            break;
    if (status)
        fclose(status);
    return kib / 1024.0;
}

int main(int count, char **arguments)
{
    if (count < 7 || VIPS_INIT(arguments[0]))
        return 1;
    vips_concurrency_set(1);
    vips_cache_set_max(0);
    size_t length;
    int rounds = atoi(arguments[6]);
    void *made = thumbnail(arguments, &length);
    double wall = milliseconds(CLOCK_MONOTONIC), cpu = milliseconds(CLOCK_PROCESS_CPUTIME_ID);
    for (int i = 0; i < rounds; i++) {
        g_free(made);
        made = thumbnail(arguments, &length);
    }
    wall = milliseconds(CLOCK_MONOTONIC) - wall;
    cpu = milliseconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    if (count > 7)
        g_file_set_contents(arguments[7], made, length, NULL);
    printf("{\"cpu_ms\": %.3f, \"wall_ms\": %.3f, \"bytes\": %zu, \"peak_mib\": %.1f, \"what\": \"\"}\n",
        cpu / rounds, wall / rounds, length, peak_mib());
    return 0;
}
