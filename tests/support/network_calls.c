/* Preloaded: a line in $NETWORK_CALLS for each call that looks a host up or addresses one, from
   whatever library. Sockets of the machine itself (AF_UNIX, AF_NETLINK) are none. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define NEXT(name) __typeof__(name) *next = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

static void tell(const char *call, const char *host) {
    const char *path = getenv("NETWORK_CALLS");
    char line[512];
    int length = snprintf(line, sizeof line, "%s %s\n", call, host ? host : "?");
    int file = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    if (file < 0 || write(file, line, length) != length) abort();
    close(file);
}

static void tell_address(const char *call, const struct sockaddr *address) {
    char host[INET6_ADDRSTRLEN] = "?";
    if (!address || address->sa_family == AF_UNIX || address->sa_family == AF_NETLINK) return;
    if (address->sa_family == AF_INET)
        inet_ntop(AF_INET, &((const struct sockaddr_in *)address)->sin_addr, host, sizeof host);
    if (address->sa_family == AF_INET6)
        inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)address)->sin6_addr, host, sizeof host);
    tell(call, host);
}

int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                struct addrinfo **found) {
    NEXT(getaddrinfo);
    tell("getaddrinfo", host);
    return next(host, service, hints, found);
}

struct hostent *gethostbyname(const char *host) {
    NEXT(gethostbyname);
    tell("gethostbyname", host);
    return next(host);
}

int connect(int file, const struct sockaddr *address, socklen_t size) {
    NEXT(connect);
    tell_address("connect", address);
    return next(file, address, size);
}

ssize_t sendto(int file, const void *data, size_t length, int flags, const struct sockaddr *address,
               socklen_t size) {
    NEXT(sendto);
    tell_address("sendto", address);
    return next(file, data, length, flags, address, size);
}

ssize_t sendmsg(int file, const struct msghdr *message, int flags) {
    NEXT(sendmsg);
    tell_address("sendmsg", message->msg_name);
    return next(file, message, flags);
}
