package webapi

import (
	"context"

	"weft/coord/ops"
)

// RequestList are the devices that wait to be let in.
type RequestList struct {
	Requests []ops.Request `json:"requests"`
}

func (a *api) requests() {
	s := a.ops
	add(a, operation{"GET", "/requests", "listRequests", "List the devices that ask to be let in without a token, without their codes", "request.read", 0},
		func(ctx context.Context, who ops.Actor, _ *struct{}) (RequestList, error) {
			list, err := s.Requests(ctx, who)
			return RequestList{list}, err
		})
	add(a, operation{"GET", "/requests/{id}", "getRequest", "Show the device that shows a code; few wrong ones may be tried", "request.read", 0},
		func(ctx context.Context, who ops.Actor, in *Word) (ops.Request, error) {
			return s.Request(ctx, who, in.ID)
		})
	addSent(a, operation{"POST", "/requests/{id}/approve", "approveRequest", "Let in the device that shows a code", "request.approve device.join", 0},
		func(ctx context.Context, who ops.Actor, in *SentTo, body ops.ApproveRequest) (ops.Device, error) {
			body.Code = in.ID
			return do(ctx, a, who, body, s.View)
		})
	add(a, operation{"POST", "/requests/{id}/deny", "denyRequest", "Refuse a device, by its code or, for those who see the list, by the id there", "request.deny", 0},
		func(ctx context.Context, who ops.Actor, in *Word) (ops.Request, error) {
			return do(ctx, a, who, ops.DenyRequest{Word: in.ID}, same)
		})
}
