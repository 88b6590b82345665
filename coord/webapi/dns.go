package webapi

import (
	"context"

	"weft/coord/ops"
)

func (a *api) names() {
	s := a.ops
	add(a, operation{"GET", "/dns", "getDNS", "Show all DNS settings", "dns.read", 0},
		func(ctx context.Context, who ops.Actor, _ *struct{}) (ops.DNSInfo, error) {
			return s.ShowDNS(ctx, who)
		})
	addSent(a, operation{"PATCH", "/dns", "editDNS", "Change DNS settings; if one part cannot be changed, none is", "dns.edit", 0},
		func(ctx context.Context, who ops.Actor, in *SentFor, e ops.DNSEdit) (ops.DNSInfo, error) {
			match, err := in.revisions()
			if err != nil {
				return ops.DNSInfo{}, err
			}
			if _, err := ops.Do(ctx, s, who, ops.EditDNS{DNSEdit: e, Match: match}); err != nil {
				return ops.DNSInfo{}, err
			}
			return s.ShowDNS(ctx, who)
		})
	addAsked(a, operation{"GET", "/dns/preview", "previewName", "Say what a name will answer on a device, and why", "dns.read", 0}, "name type from",
		func(ctx context.Context, who ops.Actor, in *Asked) (ops.Preview, error) {
			return s.Preview(ctx, who, ops.PreviewQuery{Name: in.Name, Type: in.Type, From: in.From})
		})
}
