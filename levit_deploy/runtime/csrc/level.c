/* Only in libraries for several CPUs: whether this one can run the code for one kind of them. */
#include "cpu.h"

HIDDEN int NAME(is_supported)(void);

int NAME(is_supported)(void)
{
    return cpu_is_supported();
}
