package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"weft/overlay/localapi"
)

// A daemon started in a session is found without the session's variables, one started
// without them is found with them, and another user's daemon is never used as one's
// own.
func TestUserSockets(t *testing.T) {
	dir, err := os.MkdirTemp("", "weft") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	session, state := filepath.Join(dir, "r"), filepath.Join(dir, "s")
	if err := os.Mkdir(session, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_STATE_HOME", state)
	t.Setenv("XDG_RUNTIME_DIR", session)
	t.Setenv("WEFT_SOCKET", "")
	found := func() string { return socketPath(statusCmd()) }
	listen := func(path string) (stop func()) {
		l, err := localapi.Listen(path, "")
		if err != nil {
			t.Fatal(err)
		}
		forget := noteSocket(path)
		return func() { forget(); l.Close() }
	}

	inSession, inState := filepath.Join(session, "weft", "weft.sock"), filepath.Join(state, "weft", "weft.sock")
	if userSocket() != inSession {
		t.Fatalf("a session's daemon listens at %s", userSocket())
	}
	stop := listen(inSession)
	for _, env := range []string{session, "", "/nonexistent", "relative"} {
		t.Setenv("XDG_RUNTIME_DIR", env)
		if got := found(); got != inSession {
			t.Errorf("XDG_RUNTIME_DIR=%q: %s, want %s", env, got, inSession)
		}
	}
	t.Setenv("XDG_RUNTIME_DIR", session)
	stop()
	if _, err := os.Stat(filepath.Join(state, "weft", socketNote)); err == nil {
		t.Error("the note outlives the daemon")
	}

	t.Setenv("XDG_RUNTIME_DIR", "")
	if userSocket() != inState {
		t.Fatalf("without a session it listens at %s", userSocket())
	}
	stop = listen(inState)
	t.Setenv("XDG_RUNTIME_DIR", session)
	if got := found(); got != inState {
		t.Errorf("started without a session: %s, want %s", got, inState)
	}
	stop()

	// A second daemon with another socket does not replace the first.
	stop = listen(filepath.Join(dir, "other.sock"))
	if slices.Contains(userSockets(), filepath.Join(dir, "other.sock")) {
		t.Error("a daemon with another socket counts as the user's own")
	}
	stop()

	if os.Getuid() != 0 {
		return // only root can make files of another user
	}
	const other = 65534
	stop = listen(inSession)
	defer stop()
	if err := os.Chown(inSession, other, other); err != nil {
		t.Fatal(err)
	}
	if got := found(); got == inSession {
		t.Error("another user's socket is used")
	}
	if err := os.Chown(session, other, other); err != nil {
		t.Fatal(err)
	}
	if runtimeDir() != "" {
		t.Error("another user's runtime directory is used")
	}
	note := filepath.Join(state, "weft", socketNote)
	if err := os.WriteFile(note, []byte("/x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(note, other, other); err != nil {
		t.Fatal(err)
	}
	if notedSocket(filepath.Join(state, "weft")) != "" {
		t.Error("another user's note is believed")
	}
}
