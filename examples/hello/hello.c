// SPDX-License-Identifier: Apache-2.0
// The sample app: answers every HTTP request with its version. One static file, so that its image
// is FROM scratch.
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void stop(int number) {
  (void)number;
  _exit(0);  // as PID 1 the default action of SIGTERM would be to ignore it
}

// `hello check`: the health check; 0 when the server on the port answers.
static int check(const struct sockaddr_in* address) {
  int peer = socket(AF_INET, SOCK_STREAM, 0);
  return peer < 0 || connect(peer, (const struct sockaddr*)address, sizeof *address) != 0;
}

int main(int argc, char** argv) {
  const char* port = getenv("PORT");
  struct sockaddr_in address = {.sin_family = AF_INET,
                                .sin_port = htons((unsigned short)atoi(port ? port : "8080"))};
  if (argc > 1 && strcmp(argv[1], "check") == 0) return check(&address);
#ifdef BAD
  fprintf(stderr, "hello " VERSION ": the database is newer than this program\n");
  return 3;
#endif

  signal(SIGTERM, stop);
  signal(SIGINT, stop);
  signal(SIGPIPE, SIG_IGN);
  int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (bind(listener, (struct sockaddr*)&address, sizeof address) != 0 ||
      listen(listener, 16) != 0) {
    perror("hello: cannot listen");
    return 1;
  }
  printf("hello %s listens on port %d\n", VERSION, ntohs(address.sin_port));
  fflush(stdout);
  for (;;) {
    int peer = accept(listener, NULL, NULL);
    if (peer < 0) continue;
    struct timeval limit = {.tv_sec = 2};
    setsockopt(peer, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    char request[2048];
    if (recv(peer, request, sizeof request, 0) > 0) {
      static const char answer[] =
          "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nhello " VERSION
          "\n";
      send(peer, answer, sizeof answer - 1, 0);
    }
    close(peer);
  }
}
