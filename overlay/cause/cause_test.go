package cause

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// The name of a file or a port is said beside what is wrong with it, and not twice.
func TestOf(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, taken := net.Listen("tcp", l.Addr().String())
	_, absent := os.ReadFile(filepath.Join(t.TempDir(), "x"))
	moved := os.Rename(filepath.Join(t.TempDir(), "x"), filepath.Join(t.TempDir(), "y"))
	_, unknown := net.Listen("tcp", "127.0.0.1:99999")
	_, refused := net.Dial("unix", filepath.Join(t.TempDir(), "x"))
	other := errors.New("as it is")
	for _, c := range []struct {
		err  error
		want string
	}{
		{taken, syscall.EADDRINUSE.Error()},
		{fmt.Errorf("listen: %w", taken), syscall.EADDRINUSE.Error()},
		{absent, syscall.ENOENT.Error()},
		{moved, syscall.ENOENT.Error()},
		{refused, syscall.ENOENT.Error()},
		{unknown, "address 99999: invalid port"},
		{other, "as it is"},
	} {
		if got := Of(c.err); got == nil || got.Error() != c.want {
			t.Errorf("%v: %v, want %s", c.err, got, c.want)
		}
	}
}
