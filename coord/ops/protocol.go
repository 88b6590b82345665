package ops

import (
	"fmt"
	"net/http"
	"strconv"

	"weft/overlay/api"
)

// Who asks, for people.
const (
	theDevice = "the device"
	theRelay  = "the relay"
)

// checkProtocol refuses a version that this one does not get on with, and says
// which of the two has to be updated.
func checkProtocol(who string, p int) error {
	if p >= api.Oldest && p <= api.Newest {
		return nil
	}
	hint := "update weft on the device: run the line that the console shows for it again"
	switch {
	case p > api.Newest:
		hint = "update weft-server on the server's machine"
	case who == theRelay:
		hint = "update weft-server on the relay's machine"
	}
	return fail(http.StatusBadRequest, api.CodeProtocol, fmt.Sprintf("%s speaks protocol %d, this server %d to %d", who, p, api.Oldest, api.Newest), hint)
}

// checkHeader is checkProtocol for what a request says of itself. Versions
// before the header say it in the body where it matters.
func (rt route) checkHeader(r *http.Request) error {
	v := r.Header.Get(api.ProtocolHeader)
	if v == "" || rt.forAll {
		return nil
	}
	who := theDevice
	if rt.ofRelays() {
		who = theRelay
	}
	p, err := strconv.Atoi(v)
	if err != nil {
		return fail(http.StatusBadRequest, api.CodeBadRequest, api.ProtocolHeader+": want a number", "")
	}
	return checkProtocol(who, p)
}
