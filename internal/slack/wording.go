package slack

import (
	"fmt"
	"math"
	"strings"
	"time"
)

var emoji = map[Status]string{
	Running:    ":hourglass_flowing_sand:",
	Success:    ":white_check_mark:",
	Failure:    ":x:",
	Skipped:    ":fast_forward:",
	Superseded: ":fast_forward:",
	Waiting:    ":hourglass_flowing_sand:",
	Dead:       ":rotating_light:",
	Silent:     ":grey_question:",
}

// voices is the number of variants of each text: plain, warm and loud. Each has
// its own column, so that a message keeps its voice from the first report to
// the last.
const voices = 3

// wording has the texts of a language. {} is replaced by the subject.
type wording struct {
	pipeline string         // text of the link
	unnamed  string         // for a subject without a name
	reply    [voices]string // asks people to look at a failure

	shortened            string // ends a shortened text
	reason, gitlab       string // of failures
	since                string // of waiting: how long
	waitsFor, goesOn     string // of waiting
	gaveUpAfter, gaveUp  string // of a dead letter that Pub/Sub gave up
	replay               string // of a dead letter
	silence              string // how long
	minutes, hours, days string // plural

	sentences map[Event]map[Status][voices]string
}

// duration writes a duration as people say it: 90 minutes, 3 hours, 2 days.
func (w wording) duration(d time.Duration) string {
	unit, in := time.Minute, w.minutes
	switch {
	case d >= 48*time.Hour:
		unit, in = 24*time.Hour, w.days
	case d >= 2*time.Hour:
		unit, in = time.Hour, w.hours
	}
	n := max(1, math.Round(float64(d)/float64(unit)))
	if n == 1 {
		in = strings.TrimSuffix(in, "s")
	}
	return fmt.Sprintf(in, n)
}

var words = map[Language]wording{
	En: {
		pipeline: "pipeline",
		unnamed:  "an image",
		reply: [voices]string{
			"Please have a look at {}.",
			"Could somebody have a look at {}, please?",
			"Help! Who has a look at {}?",
		},
		shortened:   " … (shortened)",
		reason:      "The reason: %s",
		gitlab:      "GitLab says: %s",
		since:       "It has been waiting for %s.",
		waitsFor:    "What it waits for: %s",
		goesOn:      "Once that is fixed, it goes on by itself.",
		gaveUpAfter: "I gave up after %d attempts.",
		gaveUp:      "I gave up after many attempts.",
		replay:      "Once that is fixed, this starts it again:",
		silence:     "It has reported nothing for %s. Perhaps its runner is gone, or it never ran.",
		minutes:     "%.0f minutes",
		hours:       "%.0f hours",
		days:        "%.0f days",
		sentences: map[Event]map[Status][voices]string{
			Promote: {
				Dead:       {"There is no pipeline for {}.", "Sniff, I could not start a pipeline for {} …", "Argh, there is no pipeline for {}!"},
				Silent:     {"The pipeline of {} is silent.", "I have not heard from the pipeline of {} for a while …", "Hello? The pipeline of {} does not answer!"},
				Running:    {"Signing {} …", "{} has arrived, let me sign it …", "On it! Signing {} …"},
				Success:    {"{} is signed.", "Phew, {} is built and signed.", "All done! {} is signed."},
				Failure:    {"{} could not be signed.", "Sniff, I could not sign {} …", "Argh, signing {} failed!"},
				Skipped:    {"There was nothing to do for {}.", "{} needed nothing from me.", "Nothing to do for {}, hooray!"},
				Superseded: {"{} is another image by now; that one has its own pipeline.", "{} has become another image in the meantime; that one has its own pipeline.", "Too late, {} is another image by now! That one has its own pipeline."},
				Waiting:    {"{} is waiting.", "{} has to wait a little, I am sorry …", "Not yet! {} has to wait …"},
			},
			Registration: {
				Waiting: {"Docker Hub does not tell me of {}.", "Docker Hub has not told me of {} even once …", "Psst! Docker Hub never calls me about {}!"},
			},
			Release: {
				Running:    {"Releasing {} …", "Let me release {} …", "On it! Releasing {} …"},
				Success:    {"{} is released.", "Phew, {} is released.", "All done! {} is released."},
				Failure:    {"{} could not be released.", "Sniff, I could not release {} …", "Argh, releasing {} failed!"},
				Skipped:    {"There was nothing to release for {}.", "{} needed no release from me.", "Nothing to release for {}, hooray!"},
				Superseded: {"{} is not released; another release has taken its place.", "I let {} be, another release has taken its place.", "Too late for {}! Another release has taken its place."},
			},
			Deploy: {
				Running:    {"Deploying {} …", "Let me deploy {} …", "On it! Deploying {} …"},
				Success:    {"{} is deployed.", "Phew, {} is deployed.", "All done! {} is deployed."},
				Failure:    {"{} could not be deployed.", "Sniff, I could not deploy {} …", "Argh, deploying {} failed!"},
				Skipped:    {"There was nothing to deploy for {}.", "{} needed no deploy from me.", "Nothing to deploy for {}, hooray!"},
				Superseded: {"{} is not deployed; another deploy has taken its place.", "I let {} be, another deploy has taken its place.", "Too late for {}! Another deploy has taken its place."},
			},
		},
	},
	Ja: {
		pipeline: "パイプライン",
		unnamed:  "イメージ",
		reply: [voices]string{
			"{} を確認してください",
			"だれか {} を見てくれるかな・・・？",
			"たすけてー！ だれか {} を見てー",
		},
		shortened:   " …（つづきは省略しました）",
		reason:      "りゆう: %s",
		gitlab:      "GitLab のことば: %s",
		since:       "もう %s、待っています。",
		waitsFor:    "待っているもの: %s",
		goesOn:      "なおったら、ひとりでに先へすすみます。",
		gaveUpAfter: "%d 回ためして、あきらめました。",
		gaveUp:      "なんどもためして、あきらめました。",
		replay:      "なおったら、これでもう一度はじめられます:",
		silence:     "もう %s、なにも知らせがありません。ランナーがいなくなったか、はじまらなかったのかもしれません。",
		minutes:     "%.0f 分",
		hours:       "%.0f 時間",
		days:        "%.0f 日",
		sentences: map[Event]map[Status][voices]string{
			Promote: {
				Dead:       {"{} のパイプラインを始められませんでした", "うぅ、{} のパイプラインを始められなかったよ・・・", "ぎゃー、{} のパイプラインがないよー"},
				Silent:     {"{} のパイプラインから知らせがありません", "{} のパイプラインから、しばらく知らせがないよ・・・", "おーい、{} のパイプライン、返事してー"},
				Running:    {"{} に署名しています", "{} が届いたよ。いま署名しているね・・・", "よーし、{} に署名するよ！"},
				Success:    {"{} に署名しました", "ふう、{} をビルドして署名したよ", "{} の署名、おわったよ！"},
				Failure:    {"{} の署名に失敗しました", "うぅ、{} に署名できなかったよ・・・", "ぎゃー、{} の署名に失敗したー"},
				Skipped:    {"{} ですることはありませんでした", "{} は、することがなかったよ", "やったー、{} はなにもしなくてよかったよ！"},
				Superseded: {"{} はもう別のイメージです。そちらには別のパイプラインがあります", "{} は、いつのまにか別のイメージになっていたよ。そっちは別のパイプラインがやってくれるよ", "おっと、{} はもう別のイメージだよ！ そっちには別のパイプラインがあるよ"},
				Waiting:    {"{} は待っています", "ごめんね、{} はもう少し待っててね・・・", "まってー、{} はまだ待ってるところだよー"},
			},
			Registration: {
				Waiting: {"Docker Hub から {} の知らせがありません", "Docker Hub が {} のことを一度も教えてくれないよ・・・", "ねえねえ、Docker Hub が {} のことを教えてくれないよー！"},
			},
			Release: {
				Running:    {"{} をリリースしています", "いま {} をリリースしているね・・・", "よーし、{} をリリースするよ！"},
				Success:    {"{} がリリースされました", "ふう、{} をリリースしたよ", "{} のリリース、おわったよ！"},
				Failure:    {"{} のリリースに失敗しました", "うぅ、{} をリリースできなかったよ・・・", "ぎゃー、{} のリリースに失敗したー"},
				Skipped:    {"{} でリリースするものはありませんでした", "{} は、リリースするものがなかったよ", "やったー、{} はリリースしなくてよかったよ！"},
				Superseded: {"{} は別のリリースに代わったので、リリースしませんでした", "{} は、別のリリースに代わったから、そのままにしておくね", "おっと、{} は別のリリースに代わったよ！"},
			},
			Deploy: {
				Running:    {"{} をデプロイしています", "いま {} をデプロイしているね・・・", "よーし、{} をデプロイするよ！"},
				Success:    {"{} がデプロイされました", "ふう、{} をデプロイしたよ", "{} のデプロイ、おわったよ！"},
				Failure:    {"{} のデプロイに失敗しました", "うぅ、{} をデプロイできなかったよ・・・", "ぎゃー、{} のデプロイに失敗したー"},
				Skipped:    {"{} でデプロイするものはありませんでした", "{} は、デプロイするものがなかったよ", "やったー、{} はデプロイしなくてよかったよ！"},
				Superseded: {"{} は別のデプロイに代わったので、デプロイしませんでした", "{} は、別のデプロイに代わったから、そのままにしておくね", "おっと、{} は別のデプロイに代わったよ！"},
			},
		},
	},
}
