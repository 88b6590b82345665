package webapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"weft/coord/ops"
	"weft/overlay/peercred"
)

const socketName = "admin.sock"

// SocketPath returns a path for the socket in a data directory that fits into a
// sockaddr, however long the directory's is. done releases it after use.
func SocketPath(data string) (path string, done func(), err error) {
	path = filepath.Join(data, socketName)
	if len(path) < 100 {
		return path, func() {}, nil
	}
	d, err := os.Open(data)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), socketName), func() { d.Close() }, nil
}

// Listen makes the socket. The caller holds the lock of the data directory, so an
// existing socket was left by a process that has ended.
func Listen(data string) (net.Listener, error) {
	path, done, err := SocketPath(data)
	if err != nil {
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	defer done()
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	// The directory is 0700; the mode of the socket itself is a second protection.
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // the path may be removed by then
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	return l, nil
}

// writeOld answers a weft-server that is older than the running one, in the form that
// it can read.
func writeOld(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusNotFound)
	json.NewEncoder(w).Encode(map[string]string{"code": "no_such_operation",
		"message": "the server that runs is newer than this weft-server", "hint": "use the weft-server that the server was started from"})
}

type peerKey struct{}

// PeerContext notes whether the process at the other end of a connection runs as our
// own user or root. It is the ConnContext of the server of OnSocket.
func PeerContext(ctx context.Context, c net.Conn) context.Context {
	ok := false
	if uc, is := c.(*net.UnixConn); is {
		uid, err := peercred.UID(uc)
		ok = err == nil && (uid == 0 || int(uid) == os.Geteuid())
	}
	return context.WithValue(ctx, peerKey{}, ok)
}

// OnSocket serves the API to processes that may read the data directory, as root.
func OnSocket(api http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ok, _ := r.Context().Value(peerKey{}).(bool); !ok || r.Header.Get("Origin") != "" {
			writeProblem(w, &Problem{Status: http.StatusForbidden, Code: codeForbidden, Detail: "only the server's own user may do this"})
			return
		}
		if !strings.HasPrefix(r.URL.Path, "/api/") { // sent by a weft-server from before this API
			writeOld(w)
			return
		}
		api.ServeHTTP(w, r.WithContext(WithActor(r.Context(), ops.Root())))
	})
}
