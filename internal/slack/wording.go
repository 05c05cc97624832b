package slack

var emoji = map[Status]string{
	Running: ":hourglass_flowing_sand:",
	Success: ":white_check_mark:",
	Failure: ":x:",
	Skipped: ":fast_forward:",
}

// wording is how a language says it.
type wording struct {
	pipeline string // what the link is called
	reply    string // to a failure, before what failed
	// sentences: {} stands for what it happened to.
	sentences map[Event]map[Status][]string
}

var words = map[Language]wording{
	En: {
		pipeline: "pipeline",
		reply:    "Somebody please have a look:",
		sentences: map[Event]map[Status][]string{
			Promote: {
				Running: {"Checking and signing {} …", "{} has arrived. Signing it …", "On it: signing {} …"},
				Success: {"{} is signed and out. Done!", "Phew, {} is signed and ready.", "All done! {} is signed."},
				Failure: {"Oh no, {} could not be signed.", "Argh, signing {} failed.", "Sorry, {} did not make it."},
				Skipped: {"{}: nothing to do, all is well.", "{} needed nothing from me."},
			},
			Release: {
				Running: {"Releasing {} …", "On it: releasing {} …"},
				Success: {"{} is released!", "Phew, {} is released.", "All done! {} is out."},
				Failure: {"Oh no, {} could not be released.", "Argh, the release of {} failed."},
				Skipped: {"{}: there was nothing to release."},
			},
			Deploy: {
				Running: {"Deploying {} …", "On it: deploying {} …"},
				Success: {"{} is deployed!", "Phew, {} is live.", "All done! {} is deployed."},
				Failure: {"Oh no, {} could not be deployed.", "Argh, the deploy of {} failed."},
				Skipped: {"{}: there was nothing to deploy."},
			},
		},
	},
	Ja: {
		pipeline: "パイプライン",
		reply:    "だれか見てくれるかな・・・？",
		sentences: map[Event]map[Status][]string{
			Promote: {
				Running: {"{} を確認して署名しているよ・・・", "{} が届いたよ。いま署名しているね", "{} の署名、はじめたよ！"},
				Success: {"{} に署名して公開しました", "ふう、{} をビルドしたよ", "おわったよ！{} は署名済みだよ"},
				Failure: {"{} に署名できませんでした", "うぅ、{} に署名できなかったよ・・・", "ぎゃー、{} 失敗したー"},
				Skipped: {"{} は、することがなかったよ", "{} はもう大丈夫みたい"},
			},
			Release: {
				Running: {"{} をリリースしているよ・・・", "{} のリリース、はじめたよ！"},
				Success: {"{} がリリースされました", "{} のリリース、おわったよ！", "ふう、{} をリリースしたよ"},
				Failure: {"{} のリリースに失敗しました", "うぅ、{} をリリースできなかったよ・・・", "ぎゃー、{} のリリース失敗したー"},
				Skipped: {"{} は、リリースするものがなかったよ"},
			},
			Deploy: {
				Running: {"{} をデプロイしているよ・・・", "{} のデプロイ、はじめたよ！"},
				Success: {"{} をデプロイしました", "{} のデプロイ、おわったよ！", "ふう、{} をデプロイしたよ"},
				Failure: {"{} のデプロイに失敗しました", "うぅ、{} をデプロイできなかったよ・・・", "ぎゃー、{} のデプロイ失敗したー"},
				Skipped: {"{} は、デプロイするものがなかったよ"},
			},
		},
	},
}
