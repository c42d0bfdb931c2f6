/* keep_drivers.c - preloaded where leaks are looked for: the library of a Vulkan driver stays when the loader closes it. What a driver has
 * made once and points to from its own static memory (llvmpipe of Mesa 22.3, on processors of AMD, a table of caches) would be told as a
 * leak when that memory is gone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <string.h>

int dlclose(void *handle)
{
    struct link_map *map = NULL;
    int (*closes)(void *) = (int (*)(void *))dlsym(RTLD_NEXT, "dlclose");
    if (!dlinfo(handle, RTLD_DI_LINKMAP, &map) && strstr(map->l_name, "/libvulkan_"))
        return 0;
    return closes(handle);
}
