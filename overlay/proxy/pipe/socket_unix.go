//go:build unix

package pipe

import (
	"io"
	"syscall"

	"weft/overlay/limited"
)

// copySocket copies from a kernel socket and holds a buffer only while there is data to
// read.
func copySocket(dst io.Writer, src syscall.Conn) (total int64, err error) {
	raw, err := src.SyscallConn()
	if err != nil {
		return 0, err
	}
	for {
		var buf []byte
		var n int
		var rerr error
		err := raw.Read(func(fd uintptr) bool {
			buf = limited.GetBuffer()
			for {
				n, rerr = syscall.Read(int(fd), buf)
				if rerr != syscall.EINTR {
					break
				}
			}
			if rerr == syscall.EAGAIN {
				limited.PutBuffer(buf)
				return false // wait until it is readable
			}
			return true
		})
		if err != nil {
			return total, err
		}
		if rerr != nil || n <= 0 {
			limited.PutBuffer(buf)
			return total, rerr
		}
		w, werr := dst.Write(buf[:n])
		limited.PutBuffer(buf)
		total += int64(w)
		if werr != nil {
			return total, werr
		}
	}
}
