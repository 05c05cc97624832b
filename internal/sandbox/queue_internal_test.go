package sandbox

import (
	"testing"
	"testing/synctest"
	"time"

	pubsubapi "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
)

// As Google's subscription, and unlike pstest, which forgets after ten minutes.
func TestALetterWaitsUntilItIsAcknowledged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const name = "projects/demo/subscriptions/dead-letters"
		b := newLetterBox(name, time.Now)
		ask := func(request any) any {
			t.Helper()
			handled, answer, err := b.React(request)
			if !handled || err != nil {
				t.Fatalf("%v: %v %v", request, handled, err)
			}
			return answer
		}
		pull := func(want int) (receipts []string) {
			t.Helper()
			got := ask(&pubsubpb.PullRequest{Subscription: name, MaxMessages: 2}).(*pubsubpb.PullResponse).ReceivedMessages
			if len(got) != want {
				t.Fatalf("pulled %v, want %d", got, want)
			}
			for _, m := range got {
				receipts = append(receipts, m.AckId)
			}
			return receipts
		}
		for _, id := range []string{"m1", "m2", "m3"} {
			b.put(&pubsubapi.Message{ID: id, PublishTime: time.Now()})
		}
		time.Sleep(30 * 24 * time.Hour)
		first := pull(2)
		pull(1)
		pull(0)
		time.Sleep(lease + time.Second)
		second := pull(2)
		ask(&pubsubpb.AcknowledgeRequest{Subscription: name, AckIds: append(first, "", "other")}) // too late
		ask(&pubsubpb.ModifyAckDeadlineRequest{Subscription: name, AckIds: second, AckDeadlineSeconds: 600})
		time.Sleep(9 * time.Minute)
		third := pull(1)
		ask(&pubsubpb.ModifyAckDeadlineRequest{Subscription: name, AckIds: third}) // given back
		ask(&pubsubpb.AcknowledgeRequest{Subscription: name, AckIds: second})
		ask(&pubsubpb.AcknowledgeRequest{Subscription: name, AckIds: pull(1)})
		time.Sleep(time.Hour)
		pull(0)

		for _, other := range []any{
			&pubsubpb.PullRequest{Subscription: "other"}, &pubsubpb.AcknowledgeRequest{Subscription: "other"},
			&pubsubpb.ModifyAckDeadlineRequest{Subscription: "other"}, &pubsubpb.Subscription{Name: name},
		} {
			if handled, _, _ := b.React(other); handled {
				t.Errorf("%v was answered", other)
			}
		}
	})
}

func TestDeployedBackoffTakesSevenHours(t *testing.T) {
	t.Parallel()
	var total time.Duration
	for attempt := 1; attempt < MaxDeliveryAttempts; attempt++ {
		total += Deployed.after(attempt)
	}
	if total < 7*time.Hour || total > 8*time.Hour || Deployed.after(1) != 10*time.Second || Deployed.after(7) != 600*time.Second {
		t.Errorf("the deliveries take %s", total)
	}
}
