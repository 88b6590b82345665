package main

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"weft/overlay/localapi"
)

// systemSocket is where a daemon that runs as root is found.
const systemSocket = "/run/weft/weft.sock"

// userSocket is where a user's own daemon listens: in the runtime directory,
// which the system empties at logout, or with the state where there is none.
func userSocket() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "weft", "weft.sock")
	}
	if dir := userState(); dir != "" {
		return filepath.Join(dir, "weft.sock")
	}
	return ""
}

// userState is the state directory of a user's own daemon, "" when there is no
// home directory.
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

// client returns a client for the daemon that cmd is to speak to: --socket,
// WEFT_SOCKET, else the user's own daemon if it answers, else the system's.
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
	user := userSocket()
	if user == "" {
		return systemSocket
	}
	if answers(user) || !answers(systemSocket) && os.Getuid() != 0 {
		return user
	}
	return systemSocket
}

// answers reports whether somebody listens there, whoever may speak to it.
func answers(path string) bool {
	c, err := net.Dial("unix", path)
	if err == nil {
		c.Close()
		return true
	}
	return errors.Is(err, fs.ErrPermission)
}
