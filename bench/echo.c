/* Sends FILE to a server that echoes it, CALLS times over each of CONNECTIONS kept connections, and drops what comes back.
 * usage: echo PORT FILE CONNECTIONS CALLS      build: cc -O2 -pthread -o echo echo.c
 * prints bytes per second. It touches no byte that it need not (sendfile, MSG_TRUNC), so as not to be what is measured;
 * the answer has to be a 200 with as many bytes as FILE, which must not end in a newline. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
static int port, calls;
static const char *path;
static off_t size;

static void fail(const char *what) {
	perror(what);
	exit(1);
}

/* Takes what has come of the answer; true at its end. */
static int receive(int sock, off_t *received, off_t *expected) {
	static __thread char buf[65536];
	/* The last bytes are looked at, and the head; those in between are not even copied. */
	off_t dull = *received == 0 ? 0 : size - *received;
	ssize_t n = dull > 0 ? recv(sock, NULL, dull < (1 << 20) ? dull : 1 << 20, MSG_TRUNC) : recv(sock, buf, sizeof buf - 1, 0);
	if (n <= 0) fail("the answer broke off");
	if (*received == 0) {
		buf[n] = 0;
		char *end = strstr(buf, "\r\n\r\n"), *length = strcasestr(buf, "\r\ncontent-length:");
		if (strncmp(buf, "HTTP/1.1 200 ", 13) || !end) return fprintf(stderr, "not a 200: %.200s\n", buf), exit(1), 0;
		*expected = length && length < end ? end + 4 - buf + atoll(length + 17) : 0;
	}
	*received += n;
	if (*expected) return *received == *expected;
	return *received > size && dull <= 0 && n >= 4 && !memcmp(buf + n - 4, "\r\n\r\n", 4);
}

static void *caller(void *unused) {
	(void)unused;
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int file = open(path, O_RDONLY), sock = socket(AF_INET, SOCK_STREAM, 0), one = 1;
	char head[200];
	int length = snprintf(head, sizeof head, "POST / HTTP/1.1\r\nHost: echo\r\nContent-Length: %lld\r\n\r\n", (long long)size);
	if (connect(sock, (struct sockaddr *)&address, sizeof address)) fail("connect");
	fcntl(sock, F_SETFL, O_NONBLOCK);
	setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	for (int i = 0; i < calls; i++) {
		off_t sent = 0, received = 0, expected = 0;
		if (send(sock, head, length, MSG_MORE) != length) fail("send");
		for (int done = 0; !done;) {
			struct pollfd p = {sock, POLLIN | (sent < size ? POLLOUT : 0), 0};
			if (poll(&p, 1, 60000) <= 0) fail("nothing moves");
			if (p.revents & POLLOUT && sendfile(sock, file, &sent, 1 << 20) < 0) fail("sendfile");
			if (p.revents & ~POLLOUT) done = receive(sock, &received, &expected);
		}
	}
	return NULL;
}

int main(int argc, char **argv) {
	if (argc != 5) return fprintf(stderr, "usage: echo PORT FILE CONNECTIONS CALLS\n"), 64;
	port = atoi(argv[1]), path = argv[2], calls = atoi(argv[4]);
	int connections = atoi(argv[3]);
	struct stat s;
	if (stat(path, &s)) fail(path);
	size = s.st_size;
	pthread_t t[64];
	struct timespec a, b;
	clock_gettime(CLOCK_MONOTONIC, &a);
	for (int i = 0; i < connections; i++) pthread_create(&t[i], NULL, caller, NULL);
	for (int i = 0; i < connections; i++) pthread_join(t[i], NULL);
	clock_gettime(CLOCK_MONOTONIC, &b);
	printf("%.0f\n", (double)size * calls * connections / (b.tv_sec - a.tv_sec + (b.tv_nsec - a.tv_nsec) / 1e9));
	return 0;
}
