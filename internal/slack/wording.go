package slack

var emoji = map[Status]string{
	Running: ":hourglass_flowing_sand:",
	Success: ":white_check_mark:",
	Failure: ":x:",
	Skipped: ":fast_forward:",
	Dead:    ":rotating_light:",
	Silent:  ":grey_question:",
}

// voices is in how many ways each thing is said: plainly, warmly and loudly.
// Each keeps its column, so that a message keeps its voice from the first
// report to the last.
const voices = 3

// wording is how a language says it. {} stands for what it is about.
type wording struct {
	pipeline string         // what the link is called
	unnamed  string         // for what has no name
	reply    [voices]string // asks somebody to look at a failure

	gaveUpAfter, gaveUp string // of a dead letter that Pub/Sub gave up
	reason, replay      string // of a dead letter
	silence             string // in minutes

	sentences map[Event]map[Status][voices]string
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
		gaveUpAfter: "I gave up after %d attempts.",
		gaveUp:      "I gave up after many attempts.",
		reason:      "The reason: %s",
		replay:      "Once that is mended, this starts it again:",
		silence:     "It has reported nothing for %.0f minutes. Perhaps its runner is gone, or it never ran.",
		sentences: map[Event]map[Status][voices]string{
			Promote: {
				Dead:    {"There is no pipeline for {}.", "Sniff, I could not start a pipeline for {} …", "Argh, there is no pipeline for {}!"},
				Silent:  {"The pipeline of {} is silent.", "I have not heard from the pipeline of {} for a while …", "Hello? The pipeline of {} does not answer!"},
				Running: {"Signing {} …", "{} has arrived, let me sign it …", "On it! Signing {} …"},
				Success: {"{} is signed.", "Phew, {} is built and signed.", "All done! {} is signed."},
				Failure: {"{} could not be signed.", "Sniff, I could not sign {} …", "Argh, signing {} failed!"},
				Skipped: {"There was nothing to do for {}.", "{} needed nothing from me.", "Nothing to do for {}, hooray!"},
			},
			Release: {
				Running: {"Releasing {} …", "Let me release {} …", "On it! Releasing {} …"},
				Success: {"{} is released.", "Phew, {} is released.", "All done! {} is released."},
				Failure: {"{} could not be released.", "Sniff, I could not release {} …", "Argh, releasing {} failed!"},
				Skipped: {"There was nothing to release for {}.", "{} needed no release from me.", "Nothing to release for {}, hooray!"},
			},
			Deploy: {
				Running: {"Deploying {} …", "Let me deploy {} …", "On it! Deploying {} …"},
				Success: {"{} is deployed.", "Phew, {} is deployed.", "All done! {} is deployed."},
				Failure: {"{} could not be deployed.", "Sniff, I could not deploy {} …", "Argh, deploying {} failed!"},
				Skipped: {"There was nothing to deploy for {}.", "{} needed no deploy from me.", "Nothing to deploy for {}, hooray!"},
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
		gaveUpAfter: "%d 回ためして、あきらめました。",
		gaveUp:      "なんどもためして、あきらめました。",
		reason:      "りゆう: %s",
		replay:      "なおったら、これでもう一度はじめられます:",
		silence:     "もう %.0f 分、なにも知らせがありません。ランナーがいなくなったか、はじまらなかったのかもしれません。",
		sentences: map[Event]map[Status][voices]string{
			Promote: {
				Dead:    {"{} のパイプラインを始められませんでした", "うぅ、{} のパイプラインを始められなかったよ・・・", "ぎゃー、{} のパイプラインがないよー"},
				Silent:  {"{} のパイプラインから知らせがありません", "{} のパイプラインから、しばらく知らせがないよ・・・", "おーい、{} のパイプライン、返事してー"},
				Running: {"{} に署名しています", "{} が届いたよ。いま署名しているね・・・", "よーし、{} に署名するよ！"},
				Success: {"{} に署名しました", "ふう、{} をビルドして署名したよ", "{} の署名、おわったよ！"},
				Failure: {"{} の署名に失敗しました", "うぅ、{} に署名できなかったよ・・・", "ぎゃー、{} の署名に失敗したー"},
				Skipped: {"{} ですることはありませんでした", "{} は、することがなかったよ", "やったー、{} はなにもしなくてよかったよ！"},
			},
			Release: {
				Running: {"{} をリリースしています", "いま {} をリリースしているね・・・", "よーし、{} をリリースするよ！"},
				Success: {"{} がリリースされました", "ふう、{} をリリースしたよ", "{} のリリース、おわったよ！"},
				Failure: {"{} のリリースに失敗しました", "うぅ、{} をリリースできなかったよ・・・", "ぎゃー、{} のリリースに失敗したー"},
				Skipped: {"{} でリリースするものはありませんでした", "{} は、リリースするものがなかったよ", "やったー、{} はリリースしなくてよかったよ！"},
			},
			Deploy: {
				Running: {"{} をデプロイしています", "いま {} をデプロイしているね・・・", "よーし、{} をデプロイするよ！"},
				Success: {"{} がデプロイされました", "ふう、{} をデプロイしたよ", "{} のデプロイ、おわったよ！"},
				Failure: {"{} のデプロイに失敗しました", "うぅ、{} をデプロイできなかったよ・・・", "ぎゃー、{} のデプロイに失敗したー"},
				Skipped: {"{} でデプロイするものはありませんでした", "{} は、デプロイするものがなかったよ", "やったー、{} はデプロイしなくてよかったよ！"},
			},
		},
	},
}
