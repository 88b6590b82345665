package localapi

import "golang.org/x/sys/unix"

func socketUID(fd int) (uint32, error) {
	cred, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return 0, err
	}
	return cred.Uid, nil
}

// chmodSocket does nothing: here the file's mode is set after bind, and the
// credentials check covers the moment between.
func chmodSocket(int, uint32) error { return nil }
