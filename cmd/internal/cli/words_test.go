package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"strconv"
	"syscall"
	"testing"
)

func TestWords(t *testing.T) {
	_, notNumber := strconv.Atoi("x")
	badURL := &url.Error{Op: "parse", URL: "https://a b", Err: url.InvalidHostError(" ")}
	_, _, noPort := net.SplitHostPort("foo")
	dial := &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9}, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	open := func(errno error) error { return &fs.PathError{Op: "open", Path: "dir/x", Err: errno} }
	for _, c := range []struct {
		err  error
		want string
	}{
		{errors.New("plain"), "plain"},
		{open(syscall.ENOENT), "dir/x: no such file or directory; check the path"},
		{fmt.Errorf("write the report: %w", open(syscall.EEXIST)), "write the report: dir/x: file exists; choose another name"},
		{fmt.Errorf("read dir/x: %w", open(syscall.EISDIR)), "read dir/x: is a directory; choose another name"},
		{fmt.Errorf("save: %w", &os.LinkError{Op: "rename", Old: ".x.tmp", New: "x", Err: syscall.EROFS}), "save: x: read-only file system; choose a place that can be written to"},
		{fmt.Errorf("save: %w", open(syscall.ENOSPC)), "save: dir/x: no space left on device; make room (see: df -h), or choose another place"},
		{fmt.Errorf("keep: %w", open(fs.ErrPermission)), "keep: dir/x: permission denied; run this as the owner, or as root with sudo"},
		{fmt.Errorf("open it: %w; see: weft --help", open(syscall.ENOENT)), "open it: dir/x: no such file or directory; see: weft --help"},
		{fmt.Errorf("reach the server: %w", dial), "reach the server: 127.0.0.1:9: connection refused; see that something listens there: ss -lnt"},
		{fmt.Errorf("dial 127.0.0.1:9: %w", dial), "dial 127.0.0.1:9: connection refused; see that something listens there: ss -lnt"},
		{&net.OpError{Op: "listen", Net: "tcp", Addr: &net.TCPAddr{Port: 80}, Err: os.NewSyscallError("bind", syscall.EADDRINUSE)}, ":80: address already in use; stop what listens there (ss -lntup), or choose another port"},
		{&net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "foo", Server: "10.0.0.1:53", IsNotFound: true}}, "foo: the name is not found; check the name and this machine's network"},
		{&net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "server misbehaving", Name: "foo"}}, "foo: no resolver tells its address; check the name and this machine's network"},
		{&url.Error{Op: "Get", URL: "https://weft/v1", Err: dial}, "https://weft/v1: 127.0.0.1:9: connection refused; see that something listens there: ss -lnt"},
		{fmt.Errorf("--count: %w", notNumber), "--count: x: want a number"},
		{fmt.Errorf("--listen: %w", noPort), "--listen: foo: missing port in address"},
		{fmt.Errorf("address %w", badURL), `address https://a b: invalid character " " in host name`},
		{errors.Join(open(syscall.ENOENT), fmt.Errorf("close: %w", open(syscall.EIO))), "dir/x: no such file or directory\nclose: input/output error; check the path"},
	} {
		if got := Words(c.err); got != c.want {
			t.Errorf("%v:\n got %s\nwant %s", c.err, got, c.want)
		}
	}
}
