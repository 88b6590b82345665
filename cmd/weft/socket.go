package main

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"weft/overlay/localapi"
	"weft/overlay/peercred"
)

// systemSocket is the socket of a daemon that runs as root.
const systemSocket = "/run/weft/weft.sock"

// userSocket is the socket of a user's own daemon: in the runtime directory, which the
// system empties at logout, or with the state if there is none.
func userSocket() string {
	if dir := runtimeDir(); dir != "" {
		return filepath.Join(dir, "weft", "weft.sock")
	}
	if dir := userState(); dir != "" {
		return filepath.Join(dir, "weft.sock")
	}
	return ""
}

// runtimeDir is the session's runtime directory if it belongs to this user: su keeps
// that of the calling user.
func runtimeDir() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) && ownFile(dir) {
		return dir
	}
	return ""
}

// userSockets are the places where a user's own daemon may listen. cron, su and sudo
// start programs without the session's variables, so a daemon may have been started
// with them and be searched without them, or the reverse.
func userSockets() []string {
	var list []string
	if dir := runtimeDir(); dir != "" {
		list = append(list, filepath.Join(dir, "weft", "weft.sock"))
	}
	state := userState()
	if state != "" {
		if noted := notedSocket(state); noted != "" {
			list = append(list, noted)
		}
	}
	if runtime.GOOS == "linux" {
		list = append(list, filepath.Join("/run/user", strconv.Itoa(os.Getuid()), "weft", "weft.sock"))
	}
	if state != "" {
		list = append(list, filepath.Join(state, "weft.sock"))
	}
	return list
}

// socketNote is a file in a user's state directory with the socket path of a daemon
// started in a session.
const socketNote = "socket"

// noteSocket writes the note for a daemon that listens at path, and returns a function
// that removes it. Without the note some programs do not find the daemon.
func noteSocket(path string) (remove func()) {
	dir := userState()
	if dir == "" || path != userSocket() || filepath.Dir(path) == dir {
		return func() {}
	}
	note := filepath.Join(dir, socketNote)
	if os.MkdirAll(dir, 0o700) != nil || os.WriteFile(note, []byte(path+"\n"), 0o600) != nil {
		return func() {}
	}
	return func() {
		if notedSocket(dir) == path { // another daemon may have replaced it
			os.Remove(note)
		}
	}
}

// notedSocket reads the note; "" if there is none.
func notedSocket(dir string) string {
	note := filepath.Join(dir, socketNote)
	b, err := os.ReadFile(note)
	path := strings.TrimSuffix(string(b), "\n")
	if err != nil || !ownFile(note) || !filepath.IsAbs(path) || len(path) > 200 {
		return ""
	}
	return path
}

// userState is the state directory of a user's own daemon, "" if there is no home
// directory.
func userState() string {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "weft")
	}
	home, err := os.UserHomeDir()
	if err != nil || !filepath.IsAbs(home) {
		return ""
	}
	return filepath.Join(home, ".local", "state", "weft")
}

// client returns a client for the daemon that cmd uses: --socket, WEFT_SOCKET, or else
// the user's own daemon if it answers, or else the system's.
func client(cmd *cobra.Command) *localapi.Client {
	return localapi.NewClient(socketPath(cmd))
}

func socketPath(cmd *cobra.Command) string {
	if f := cmd.Flag("socket"); f != nil && f.Value.String() != "" {
		return f.Value.String()
	}
	if s := os.Getenv("WEFT_SOCKET"); s != "" {
		return s
	}
	for _, s := range userSockets() {
		if answersUs(s) {
			return s
		}
	}
	if user := userSocket(); user != "" && !answers(systemSocket) && os.Getuid() != 0 {
		return user
	}
	return systemSocket
}

// answersUs reports whether a daemon of this user listens at path. It sends nothing to
// a program of another user that listens there.
func answersUs(path string) bool {
	if !ownFile(path) {
		return false
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		return false
	}
	defer c.Close()
	uid, err := peercred.UID(c)
	return err == nil && int(uid) == os.Getuid() || runtime.GOOS == "windows"
}

// answers reports whether any program listens there, with access or not.
func answers(path string) bool {
	c, err := net.Dial("unix", path)
	if err == nil {
		c.Close()
		return true
	}
	return errors.Is(err, fs.ErrPermission)
}
