package gather

import (
	"bufio"
	"encoding/hex"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// addrFlags returns which IPv6 addresses are temporary and which are deprecated or not
// usable yet.
func addrFlags() map[netip.Addr]Local {
	f, err := os.Open("/proc/thread-self/net/if_inet6")
	if err != nil {
		return nil
	}
	defer f.Close()
	out := map[netip.Addr]Local{}
	for sc := bufio.NewScanner(f); sc.Scan(); {
		// address, interface, prefix length, scope, flags, name
		w := strings.Fields(sc.Text())
		if len(w) < 6 {
			continue
		}
		raw, err1 := hex.DecodeString(w[0])
		v, err2 := strconv.ParseUint(w[4], 16, 32)
		a, ok := netip.AddrFromSlice(raw)
		if err1 != nil || err2 != nil || !ok {
			continue
		}
		out[a] = Local{
			Temporary:  v&unix.IFA_F_TEMPORARY != 0,
			Deprecated: v&(unix.IFA_F_DEPRECATED|unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0 && v&unix.IFA_F_OPTIMISTIC == 0,
		}
	}
	return out
}
