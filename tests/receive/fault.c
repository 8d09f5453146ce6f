/* Preloaded into a receiver: a disk that fails once, and a resolver that never answers.
 *
 * FAULT_MATCH  fsync and fdatasync fail with EIO on the first file, or directory, whose path ends so
 * FAULT_AFTER  so many times they do not, first
 * FAULT_LOG    the inode of that file is written there
 * FAULT_RESOLVE  names are never resolved
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int fails(int fd)
{
	static int failed, passed;
	const char *match = getenv("FAULT_MATCH"), *after = getenv("FAULT_AFTER");
	char link[64], path[4096];
	struct stat found;
	ssize_t len;

	if (match == NULL || failed)
		return 0;
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	len = readlink(link, path, sizeof path - 1);
	if (len < (ssize_t) strlen(match))
		return 0;
	path[len] = 0;
	if (strcmp(path + len - strlen(match), match) != 0)
		return 0;
	if (after != NULL && passed++ < atoi(after))
		return 0;
	failed = 1;
	if (fstat(fd, &found) == 0)
	{
		FILE *log = fopen(getenv("FAULT_LOG"), "w");

		fprintf(log, "%lu", (unsigned long) found.st_ino);
		fclose(log);
	}
	errno = EIO;
	return 1;
}

int fsync(int fd)
{
	int (*real)(int) = (int (*)(int)) dlsym(RTLD_NEXT, "fsync");

	return fails(fd) ? -1 : real(fd);
}

int fdatasync(int fd)
{
	int (*real)(int) = (int (*)(int)) dlsym(RTLD_NEXT, "fdatasync");

	return fails(fd) ? -1 : real(fd);
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found)
{
	int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) =
		(int (*)(const char *, const char *, const struct addrinfo *, struct addrinfo **)) dlsym(RTLD_NEXT, "getaddrinfo");

	if (getenv("FAULT_RESOLVE") != NULL)
		for (;;)
			pause();
	return real(node, service, hints, found);
}
