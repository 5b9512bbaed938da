/* The fixed child of every comparison: cat with a 64 KiB buffer.
 * build: musl-gcc -static -O2 -o cat cat.c   (Debian musl-tools; a glibc build starts more slowly) */
#include <unistd.h>
int main(void) {
	static char buf[65536];
	ssize_t n;
	while ((n = read(0, buf, sizeof buf)) > 0)
		for (ssize_t off = 0, w; off < n; off += w)
			if ((w = write(1, buf + off, n - off)) <= 0) return 1;
	return n < 0;
}
