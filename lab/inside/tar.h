/* A tar archive's header block, as in pax(1), "ustar Interchange Format". */

#ifndef LAB_TAR_H
#define LAB_TAR_H

enum { BLOCK = 512, LARGEST_EXTENSION = 1 << 20 };
enum { PLAIN_FILE = '0', HARD_LINK, SYMBOLIC_LINK, CHARACTER_DEVICE, BLOCK_DEVICE, DIRECTORY, FIFO };
enum { EXTENDED = 'x', EXTENDED_FOR_ALL = 'g', LONG_NAME = 'L', LONG_LINK = 'K' };

struct tar_header {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], kind, link[100], magic[6], version[2],
        user[32], group[32], major[8], minor[8], prefix[155], unused[12];
};
_Static_assert(sizeof(struct tar_header) == BLOCK, "a header is one block");

unsigned tar_checksum(const struct tar_header *header);

#endif
