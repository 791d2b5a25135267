// The scan of a tile on the CPU.
#include "plugin/tile_scan.cu"  // NOLINT(bugprone-suspicious-include): the same source, for another machine
