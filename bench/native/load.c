// load: the clients of the benchmark. It opens connections, sends one request on each, takes the streams
// apart down to the events' marks, and finds every event that is missing, repeated or late; from one thread
// with one epoll.
//
//     load --port P --streams N --target '/v1/chat/completions?n=1000' [--again]
//     load --port P --requests K --concurrency C --target …
//
// The first form holds N streams: it prints `{"ready":true,…}` once each has its response head (or has
// failed), and runs until `stop` or the end of stdin. A stream that ends is not asked for again, unless with
// --again. The second form makes K requests over C connections and ends by itself. Both keep connections
// alive as long as the server does.
//
//     --host 127.0.0.1    an IPv4 address
//     --method GET        POST where there is a body
//     --header 'K: V'     as often as needed
//     --body FILE|TEXT    the contents of FILE if there is one; JSON, unless a header says otherwise
//     --ramp 2000         connections opened a second; 0: all at once
//     --expect N          events in a whole stream; else the `n` in the target's query; 0: any number
//     --no-latency        the events' times are old, or another machine's
//
// A line `mark` on stdin prints the counters since the previous mark (or the start) as one line of JSON, and
// begins anew; the last line, printed at the end, has `"final":true`. Times are in nanoseconds.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "clock.h"
#include "event.h"
#include "histogram.h"
#include "http.h"
#include "loop.h"

#define INPUT_BYTES (128 << 10)
#define HEAD_BYTES (64 << 10)
#define REQUEST_BYTES (4 << 20)

// ---- Counters

typedef enum {
    REFUSED,   // the connection was not accepted
    RESET,     // it broke
    STATUS,    // other than 200
    HEAD,      // that is none of HTTP/1.1's
    FRAMING,   // a body that is framed wrongly, or octets behind its end
    GAP,       // events missing in between
    REPEAT,    // an event that has been before
    EARLY_END, // the connection or the body ended before the stream was whole
    NO_DONE,   // all events, but no [DONE] behind them
    ERROR_KINDS,
} error_kind;

static const char *const error_names[ERROR_KINDS] = {
    "refused", "reset", "status", "head", "framing", "gap", "repeat", "early_end", "no_done",
};

static struct {
    uint64_t since;
    uint64_t cpu_since;
    uint64_t events;
    uint64_t bytes; // of bodies, without their framing
    uint64_t done;  // streams that came to their proper end
    uint64_t errors[ERROR_KINDS];
    histogram latency; // from an event's write to its reading
    histogram ttfb;    // from the request's write to its response head
    histogram ttfe;    // from the request's write to its first event
} counters;

static void counters_reset(uint64_t now, uint64_t cpu)
{
    memset(&counters, 0, sizeof counters);
    counters.since = now;
    counters.cpu_since = cpu;
}

static uint64_t errors_sum(void)
{
    uint64_t sum = 0;
    for (unsigned kind = 0; kind < ERROR_KINDS; kind++)
        sum += counters.errors[kind];
    return sum;
}

static void error_kinds_print(void)
{
    const char *comma = "";
    printf(",\"error_kinds\":{");
    for (unsigned kind = 0; kind < ERROR_KINDS; kind++) {
        if (counters.errors[kind] == 0)
            continue;
        printf("%s\"%s\":%llu", comma, error_names[kind], (unsigned long long)counters.errors[kind]);
        comma = ",";
    }
    printf("}");
}

// Prints the window that ends now, and begins the next one with the same instant.
static void counters_print(uint64_t open, bool final)
{
    uint64_t now = now_ns(), cpu = cpu_ns();
    printf("{\"t_ns\":%llu,\"events\":%llu,\"bytes\":%llu,\"done\":%llu,\"errors\":%llu",
           (unsigned long long)(now - counters.since), (unsigned long long)counters.events,
           (unsigned long long)counters.bytes, (unsigned long long)counters.done,
           (unsigned long long)errors_sum());
    error_kinds_print();
    printf(",\"open\":%llu", (unsigned long long)open);
    histogram_print(&counters.latency, "latency_ns");
    histogram_print(&counters.ttfb, "ttfb_ns");
    histogram_print(&counters.ttfe, "ttfe_ns");
    printf(",\"cpu_ns\":%llu%s}\n", (unsigned long long)(cpu - counters.cpu_since),
           final ? ",\"final\":true" : "");
    fflush(stdout);
    counters_reset(now, cpu);
}

// ---- Connections

typedef struct connection {
    source source;
    struct connection *next; // of those that wait to be opened
    int descriptor;          // -1: closed
    enum { IDLE, SENDING, RESPONSE_HEAD, RESPONSE_BODY } state;
    bool settled;    // its first response has begun, or has failed
    bool reused;     // the request is not the connection's first
    bool keep_alive; // as far as the response says
    bool done_seen;
    size_t request_sent;
    uint64_t requested; // when
    uint64_t last_seq;
    body_decoder body;
    event_scanner scanner;
    char *head; // that is not whole
    size_t head_length;
} connection;

static struct {
    struct sockaddr_in address;
    char *request;
    size_t request_length;
    uint64_t expected; // events in a stream, 0: any number
    bool latency;
    bool repeats;     // a connection whose request is done makes another
    bool exits;       // when all requests have been answered
    uint64_t count;   // of connections
    uint64_t ramp_ns; // between two openings
} settings;

static struct {
    int epoll;
    connection *connections;
    uint64_t unasked;    // requests still to make
    uint64_t unanswered; // requests whose outcome is open, asked or not
    uint64_t settled;    // connections
    uint64_t open;       // connections with a request on them
    connection *waiting, **waiting_end;
    uint64_t next_opening;
    uint64_t arrival; // when the octets at hand were read
} run = {.waiting_end = &run.waiting};

static void wait_to_open(connection *c)
{
    uint64_t now = now_ns();
    if (run.waiting == NULL && run.next_opening < now)
        run.next_opening = now; // what was not opened while nothing waited is not made up for
    c->next = NULL;
    *run.waiting_end = c;
    run.waiting_end = &c->next;
}

static void disconnect(connection *c)
{
    close(c->descriptor);
    c->descriptor = -1;
    c->state = IDLE;
}

static void settle(connection *c)
{
    run.settled += !c->settled;
    c->settled = true;
}

static bool asks_again(void)
{
    return settings.repeats && run.unasked > 0;
}

// A request has had its outcome.
static void conclude(connection *c)
{
    settle(c);
    run.open--;
    run.unanswered--;
    free(c->head);
    c->head = NULL;
    c->head_length = 0;
}

static void fail(connection *c, error_kind kind)
{
    counters.errors[kind]++;
    conclude(c);
    disconnect(c);
    if (asks_again())
        wait_to_open(c);
}

// ---- Requests

static void reconnect(connection *c);

// The connection is gone before its response was. A server may close one that it kept alive while the next
// request is on its way: RFC 9112, 9.3.1, lets the client ask again on a new one.
static void lose(connection *c, error_kind kind)
{
    if (c->reused && c->state != RESPONSE_BODY && c->head_length == 0) {
        disconnect(c);
        reconnect(c);
    } else {
        fail(c, kind);
    }
}

static error_kind error_of(int number)
{
    return number == ECONNREFUSED ? REFUSED : RESET;
}

static void send_request(connection *c)
{
    if (c->request_sent == 0)
        c->requested = now_ns();
    size_t left = settings.request_length - c->request_sent;
    ssize_t sent = send(c->descriptor, settings.request + c->request_sent, left, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) {
        lose(c, error_of(errno));
        return;
    }
    c->request_sent += sent > 0 ? (size_t)sent : 0;
    bool whole = c->request_sent == settings.request_length;
    if (whole && c->state == SENDING)
        watch_instead(run.epoll, c->descriptor, EPOLLIN, &c->source);
    if (!whole && c->state != SENDING)
        watch_instead(run.epoll, c->descriptor, EPOLLIN | EPOLLOUT, &c->source);
    c->state = whole ? RESPONSE_HEAD : SENDING;
}

static void begin_request(connection *c, bool reused)
{
    c->state = RESPONSE_HEAD;
    c->reused = reused;
    c->done_seen = false;
    c->request_sent = 0;
    c->last_seq = 0;
    c->scanner = (event_scanner){0};
    send_request(c);
}

static void reconnect(connection *c)
{
    int on = 1;
    c->descriptor = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->descriptor < 0)
        die("socket");
    setsockopt(c->descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    const struct sockaddr *address = (const struct sockaddr *)&settings.address;
    if (connect(c->descriptor, address, sizeof settings.address) != 0 && errno != EINPROGRESS) {
        fail(c, error_of(errno));
        return;
    }
    watch(run.epoll, c->descriptor, EPOLLIN, &c->source);
    begin_request(c, false);
}

static void ask(connection *c)
{
    run.unasked--;
    run.open++;
    if (c->descriptor >= 0)
        begin_request(c, true);
    else
        reconnect(c);
}

// When the next of the waiting connections is to be opened.
static uint64_t next_opening(void)
{
    return run.waiting != NULL && run.unasked > 0 ? run.next_opening : NEVER;
}

static void open_due(void)
{
    uint64_t now = run.waiting != NULL ? now_ns() : 0;
    for (int most = 64; most > 0 && next_opening() <= now; most--) {
        connection *c = run.waiting;
        run.waiting = c->next;
        if (run.waiting == NULL)
            run.waiting_end = &run.waiting;
        run.next_opening += settings.ramp_ns;
        ask(c);
    }
}

// ---- Responses

// The stream is whole, as far as its framing tells.
static void finish(connection *c)
{
    if (c->last_seq < settings.expected)
        counters.errors[EARLY_END]++;
    else if (!c->done_seen)
        counters.errors[NO_DONE]++;
    else
        counters.done++;
    conclude(c);
    if (!c->keep_alive || !asks_again())
        disconnect(c);
    if (asks_again())
        ask(c);
}

static void take_event(connection *c)
{
    uint64_t seq = c->scanner.seq, time = c->scanner.time;
    counters.events++;
    if (seq == c->last_seq + 1) {
        c->last_seq = seq;
    } else {
        counters.errors[seq > c->last_seq ? GAP : REPEAT]++;
        c->last_seq = seq > c->last_seq ? seq : c->last_seq;
    }
    if (c->requested != 0) {
        histogram_add(&counters.ttfe, run.arrival - c->requested);
        c->requested = 0;
    }
    if (settings.latency)
        histogram_add(&counters.latency, run.arrival > time ? run.arrival - time : 0);
}

static void take_data(void *owner, const char *data, size_t length)
{
    connection *c = owner;
    const char *end = data + length;
    counters.bytes += length;
    while (data < end) {
        event_finding finding;
        data = scan(&c->scanner, data, end, &finding);
        if (finding == FOUND_EVENT)
            take_event(c);
        else if (finding == FOUND_DONE)
            c->done_seen = true;
    }
}

// Takes octets of the body.
static void take_body(connection *c, const char *data, size_t length)
{
    size_t used = body_feed(&c->body, data, length, take_data, c);
    if (c->body.state == BODY_BROKEN || (c->body.state == BODY_ENDED && used < length))
        fail(c, FRAMING);
    else if (c->body.state == BODY_ENDED)
        finish(c);
}

// Goes on from a whole head that `data` begins with; the body may follow.
static void take_head(connection *c, slice head, const char *data, size_t length)
{
    if (memcmp(head.text, "HTTP/1.", 7) != 0) {
        fail(c, HEAD);
        return;
    }
    if (memcmp(head.text + 8, " 200", 4) != 0) {
        fail(c, STATUS);
        return;
    }
    slice connection_field = head_field(head, "connection");
    c->keep_alive = head.text[7] == '1' ? !slice_has(connection_field, "close")
                                        : slice_has(connection_field, "keep-alive");
    c->body = body_of(head, BODY_UNTIL_CLOSE);
    c->state = RESPONSE_BODY;
    c->keep_alive &= c->body.state != BODY_UNTIL_CLOSE;
    histogram_add(&counters.ttfb, run.arrival - c->requested);
    settle(c);
    free(c->head);
    c->head = NULL;
    take_body(c, data, length);
}

// Takes octets of the head, of which `c->head` has those of earlier reads.
static void take_head_part(connection *c, const char *data, size_t length)
{
    size_t before = c->head_length;
    if (before > 0) {
        c->head = realloc(c->head, before + length);
        if (c->head == NULL)
            die("realloc");
        memcpy(c->head + before, data, length);
    }
    const char *text = before > 0 ? c->head : data;
    size_t whole = head_length(text, before + length);
    if (whole > 0) {
        c->head_length = 0;
        take_head(c, (slice){text, whole}, data + (whole - before), before + length - whole);
    } else if (before + length > HEAD_BYTES) {
        fail(c, HEAD);
    } else if (before == 0) {
        c->head = memcpy(allocate(length), data, length);
        c->head_length = length;
    } else {
        c->head_length += length;
    }
}

static void take_end(connection *c)
{
    if (c->state == RESPONSE_BODY && c->body.state == BODY_UNTIL_CLOSE)
        finish(c);
    else
        lose(c, EARLY_END);
}

static void connection_ready(source *self, uint32_t events)
{
    static char input[INPUT_BYTES];
    connection *c = (connection *)self;
    if (c->state == SENDING && (events & EPOLLOUT) != 0) {
        send_request(c);
        return; // what there is to read is reported again
    }
    ssize_t count = recv(c->descriptor, input, sizeof input, 0);
    if (count < 0 && errno == EAGAIN)
        return;
    run.arrival = now_ns();
    if (count < 0)
        lose(c, error_of(errno));
    else if (count == 0)
        take_end(c);
    else if (c->state == RESPONSE_BODY)
        take_body(c, input, (size_t)count);
    else
        take_head_part(c, input, (size_t)count);
}

// ---- The command line

typedef struct {
    const char *host;
    uint64_t port;
    const char *method;
    const char *target;
    const char *body;
    size_t body_length;
    char headers[HEAD_BYTES];
    size_t headers_length;
} request_parts;

static void add_header(request_parts *r, const char *header)
{
    size_t room = sizeof r->headers - r->headers_length;
    size_t length = (size_t)snprintf(r->headers + r->headers_length, room, "%s\r\n", header);
    if (length >= room || strchr(header, ':') == NULL)
        misused("--header takes 'Name: value'");
    r->headers_length += length;
}

static bool has_header(const request_parts *r, const char *name)
{
    return head_field((slice){r->headers, r->headers_length}, name).length > 0;
}

static void read_body(request_parts *r, const char *file_or_text)
{
    static char contents[REQUEST_BYTES];
    r->body = file_or_text;
    r->body_length = strlen(file_or_text);
    FILE *file = fopen(file_or_text, "rb");
    if (file == NULL)
        return;
    r->body = contents;
    r->body_length = fread(contents, 1, sizeof contents, file);
    if (ferror(file) != 0 || r->body_length == sizeof contents)
        misused("--body: the file cannot be read, or is too long");
    fclose(file);
}

static void build_request(request_parts *r)
{
    char line[128];
    if (!has_header(r, "host")) {
        snprintf(line, sizeof line, "Host: %s:%u", r->host, (unsigned)r->port);
        add_header(r, line);
    }
    if (r->body != NULL && !has_header(r, "content-type"))
        add_header(r, "Content-Type: application/json");
    const char *method = r->method != NULL ? r->method : r->body != NULL ? "POST" : "GET";
    if (r->body != NULL || strcmp(method, "GET") != 0) {
        snprintf(line, sizeof line, "Content-Length: %zu", r->body_length);
        add_header(r, line);
    }
    settings.request = allocate(strlen(method) + strlen(r->target) + r->headers_length + r->body_length + 32);
    int head = sprintf(settings.request, "%s %s HTTP/1.1\r\n%s\r\n", method, r->target, r->headers);
    if (r->body_length > 0)
        memcpy(settings.request + head, r->body, r->body_length);
    settings.request_length = (size_t)head + r->body_length;
}

static uint64_t expected_of(const char *target)
{
    const char *query = strchr(target, '?');
    for (const char *at = query; at != NULL; at = strchr(at + 1, '&'))
        if (strncmp(at + 1, "n=", 2) == 0)
            return strtoull(at + 3, NULL, 10);
    return 0;
}

typedef struct {
    uint64_t streams;
    uint64_t requests;
    uint64_t concurrency;
    uint64_t ramp;
    bool again;
    bool no_latency;
    const char *expect;
    request_parts request;
} options;

static void options_read(options *o, int argc, char **argv)
{
    enum { HOST, PORT, STREAMS, REQUESTS, WORKERS, METHOD, TARGET, HEADER, BODY, RAMP, AGAIN, EXPECT, OLD };
    static const struct option known[] = {
        {"host", required_argument, NULL, HOST},
        {"port", required_argument, NULL, PORT},
        {"streams", required_argument, NULL, STREAMS},
        {"requests", required_argument, NULL, REQUESTS},
        {"concurrency", required_argument, NULL, WORKERS},
        {"method", required_argument, NULL, METHOD},
        {"target", required_argument, NULL, TARGET},
        {"header", required_argument, NULL, HEADER},
        {"body", required_argument, NULL, BODY},
        {"ramp", required_argument, NULL, RAMP},
        {"again", no_argument, NULL, AGAIN},
        {"expect", required_argument, NULL, EXPECT},
        {"no-latency", no_argument, NULL, OLD},
        {NULL, 0, NULL, 0},
    };
    for (int name; (name = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        switch (name) {
        case HOST: o->request.host = optarg; break;
        case PORT: o->request.port = number(optarg); break;
        case STREAMS: o->streams = number(optarg); break;
        case REQUESTS: o->requests = number(optarg); break;
        case WORKERS: o->concurrency = number(optarg); break;
        case METHOD: o->request.method = optarg; break;
        case TARGET: o->request.target = optarg; break;
        case HEADER: add_header(&o->request, optarg); break;
        case BODY: read_body(&o->request, optarg); break;
        case RAMP: o->ramp = number(optarg); break;
        case AGAIN: o->again = true; break;
        case EXPECT: o->expect = optarg; break;
        case OLD: o->no_latency = true; break;
        default: exit(2);
        }
    }
    bool one_form = (o->streams > 0) != (o->requests > 0);
    if (optind < argc || o->request.target == NULL || !one_form || o->concurrency == 0)
        misused("load --port P --target T (--streams N | --requests K); load.c tells the rest");
}

static uint64_t least(uint64_t one, uint64_t other)
{
    return one < other ? one : other;
}

static void settle_on(options *o)
{
    const request_parts *r = &o->request;
    settings.address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)r->port)};
    if (inet_pton(AF_INET, r->host, &settings.address.sin_addr) != 1 || r->port < 1 || r->port > 65535)
        misused("--host takes an IPv4 address, --port a port");
    build_request(&o->request);
    settings.expected = o->expect != NULL ? number(o->expect) : expected_of(r->target);
    settings.latency = !o->no_latency;
    settings.exits = o->requests > 0;
    settings.repeats = settings.exits || o->again;
    settings.count = o->streams > 0 ? o->streams : least(o->requests, o->concurrency);
    settings.ramp_ns = o->ramp > 0 ? NS_PER_SECOND / o->ramp : 0;
    run.unasked = o->again && o->streams > 0 ? UINT64_MAX : o->streams + o->requests;
    run.unanswered = run.unasked;
}

// ---- The run

static void commands_ready(source *self, uint32_t events)
{
    (void)events;
    command_input *input = (command_input *)self;
    char line[COMMAND_BYTES];
    commands_receive(input);
    while (!input->ended && commands_next(input, line)) {
        if (strcmp(line, "stop") == 0)
            input->ended = true;
        else if (strcmp(line, "mark") == 0)
            counters_print(run.open, false);
    }
}

static void connections_wait(uint64_t count)
{
    run.connections = allocate(count * sizeof *run.connections);
    for (connection *c = run.connections; c < run.connections + count; c++) {
        *c = (connection){.source = {connection_ready}, .descriptor = -1};
        wait_to_open(c);
    }
}

static bool announce_ready(void)
{
    if (run.settled < settings.count)
        return false;
    printf("{\"ready\":true,\"open\":%llu}\n", (unsigned long long)run.open);
    fflush(stdout);
    return true;
}

int main(int argc, char **argv)
{
    static command_input commands = {.source = {commands_ready}};
    static options o = {.concurrency = 1, .ramp = 2000, .request.host = "127.0.0.1"};
    options_read(&o, argc, argv);
    settle_on(&o);
    raise_descriptor_limit();
    run.epoll = epoll_create1(EPOLL_CLOEXEC);
    watch(run.epoll, STDIN_FILENO, EPOLLIN, &commands.source);
    counters_reset(now_ns(), cpu_ns());
    connections_wait(settings.count);
    bool ready = settings.exits;
    while (!commands.ended && !(settings.exits && run.unanswered == 0)) {
        open_due();
        ready = ready || announce_ready();
        loop_turn(run.epoll, next_opening());
    }
    counters_print(run.open, true);
    return 0;
}
