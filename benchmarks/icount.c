/* A plugin for qemu-user 7.2: counts the guest's instructions and prints them when it exits.
 * The declarations are those of QEMU's plugin API that it needs, so that no header is required. */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#define PUBLIC __attribute__((visibility("default")))

struct block;
typedef void translated(uint64_t plugin, struct block *block);
typedef void exiting(uint64_t plugin, void *data);

void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t plugin, translated *callback);
void qemu_plugin_register_vcpu_tb_exec_inline(struct block *block, int operation, void *counter,
                                              uint64_t amount);
void qemu_plugin_register_atexit_cb(uint64_t plugin, exiting *callback, void *data);
size_t qemu_plugin_tb_n_insns(const struct block *block);

PUBLIC int qemu_plugin_version = 1;

enum { ADD = 0 };
static uint64_t instructions;

static void count(uint64_t plugin, struct block *block)
{
    (void)plugin;
    qemu_plugin_register_vcpu_tb_exec_inline(block, ADD, &instructions,
                                             qemu_plugin_tb_n_insns(block));
}

static void print(uint64_t plugin, void *data)
{
    (void)plugin, (void)data;
    char text[32];
    int length = snprintf(text, sizeof text, "%" PRIu64 "\n", instructions);
    if (write(STDERR_FILENO, text, (size_t)length) != length)
        _exit(1);
}

PUBLIC int qemu_plugin_install(uint64_t plugin, const void *info, int argc, char **argv)
{
    (void)info, (void)argc, (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(plugin, count);
    qemu_plugin_register_atexit_cb(plugin, print, NULL);
    return 0;
}
