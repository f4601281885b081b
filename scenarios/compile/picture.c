/* Draw a picture, write it as PNG, read it back: three libraries of stb, some ten thousand lines of C. */
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_RESIZE_IMPLEMENTATION
#include <stb/stb_image.h>
#include <stb/stb_image_resize.h>
#include <stb/stb_image_write.h>
#include <stdio.h>

enum { SIDE = 64, LARGE = 256 };

int main(void) {
    static unsigned char small[SIDE * SIDE * 3], large[LARGE * LARGE * 3];
    for (int i = 0; i < SIDE * SIDE; i++)
        for (int colour = 0; colour < 3; colour++)
            small[3 * i + colour] = (unsigned char)(i * (colour + 1) ^ i >> 6);
    stbir_resize_uint8(small, SIDE, SIDE, 0, large, LARGE, LARGE, 0, 3);
    if (!stbi_write_png("picture.png", LARGE, LARGE, 3, large, 0)) return 1;
    int width, height, channels;
    unsigned char *read = stbi_load("picture.png", &width, &height, &channels, 3);
    if (!read || width != LARGE || height != LARGE) return 2;
    for (int i = 0; i < LARGE * LARGE * 3; i++)
        if (read[i] != large[i]) return 3;
    printf("picture %dx%d, the same after a trip through a file\n", width, height);
    return 0;
}
