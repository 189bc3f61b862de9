"""A small thesaurus for comparing statements: English words that stand for each other, and those that oppose.

Retellings replace common words by their neighbours (a client by a customer, to offer by to provide), errors by their
opposites (to save for to cost). The lists hold what is common in reports, letters, talks and abstracts, written from
general knowledge of the language and not from any data set. A word in none of them is compared by its form alone, as
are all words of other languages.
"""

from __future__ import annotations

from functools import cache

__all__ = ["opposites", "synonyms"]

# One family a line; a word may be in several.
_SAME = """
offer provide give present propose supply deliver suggest furnish extend equip grant serve endow bring
propose introduce present suggest develop put describe
discuss talk speak debate converse conversation discussion deliberate address cover
say tell state mention note remark express declare report explain describe outline detail claim comment point add
ask inquire enquire question query request inquiry enquiry
answer reply respond response
call phone telephone contact ring reach
contact reach approach email write message
agree accept consent approve concur acceptance agreement
think believe feel consider suppose opine hold reckon opinion view
consider contemplate ponder weigh explore examine evaluate look
know understand realise realize recognise recognize aware familiar learn grasp comprehend
find discover identify determine see observe notice detect spot perceive discern ascertain realize establish
show demonstrate reveal indicate prove illustrate display exhibit present showcase evidence
suggest recommend advise propose advice recommendation suggestion endorse promote
want wish desire hope intend aim seek need like plan look strive
interest interested keen curious intrigued eager
concern worry worried concerned anxious fear afraid apprehensive
need require necessary necessity requirement essential mandatory demand must want
important essential crucial key vital significant critical major main central fundamental primary
use utilise utilize employ apply leverage usage using adopt via rely exploit harness
make create build construct produce develop design generate form craft
get receive obtain gain acquire earn secure procure achieve have avail qualify eligible entitled
buy purchase acquire procure order
sell sale market vend
help assist aid support enable facilitate allow let permit
try attempt seek strive effort endeavour endeavor
start begin commence launch initiate introduce kick
stop end finish cease halt conclude terminate complete close discontinue
keep maintain retain preserve hold sustain continue remain stay
change modify alter adjust adapt transform vary convert shift
reduce decrease lower cut diminish lessen minimise minimize curb curtail trim shrink decline drop fall reduction shorten
increase raise boost enhance grow rise growth elevate expand improve amplify escalate surge gain strengthen
improve enhance better optimise optimize upgrade refine improvement boost advance
include contain comprise involve incorporate encompass feature consist cover integrate
remove delete eliminate drop exclude omit leave discard skip strip
connect link join relate associate combine unite
combine merge fuse integrate join blend incorporate unify mix
compare contrast difference distinction differ comparison distinguish
solve resolve address tackle fix handle overcome deal solution
choose select pick opt decide choice selection option decision prefer preference
plan scheme policy package option programme program proposal product
plan intend schedule arrange prepare organise organize
meet meeting appointment session call conference gathering
agree decide conclude settle resolve determine decision conclusion
method approach technique way strategy procedure means process scheme framework mechanism
model system framework architecture network approach algorithm
task problem challenge issue dilemma difficulty question matter concern
problem issue trouble difficulty obstacle complication predicament
result outcome finding consequence effect
experiment test trial evaluation study empirical
test evaluate assess measure examine check validate verify
study research investigate analyse analyze analysis examine explore investigation
predict forecast estimate anticipate prediction expect
estimate approximate appraisal assessment quote
represent representation encode express depict describe
learn train teach learning training
perform performance work function act behave operate execute
outperform exceed surpass beat better superior
achieve attain accomplish reach realise realize succeed gain
success prosperity achievement triumph accomplishment
new novel innovative original fresh groundbreaking unique modern recent
good great excellent fine positive favourable favorable well beneficial
bad poor negative unfavourable unfavorable inferior
big large great huge substantial considerable significant sizeable major
small little minor tiny slight modest compact
many numerous several multiple various lot diverse different wide
variety range array assortment selection diverse diversity multitude spectrum lineup collection suite set
some certain several particular specific few various
particular specific special certain specifically especially particularly namely
about around approximately roughly nearly almost circa
fast quick rapid speedy swift prompt
simple easy straightforward plain basic
difficult hard challenging tough complex complicated
expensive costly high pricey dear steep
cheap affordable inexpensive economical low
cost price expense charge fee expenditure payment rate
money fund budget funding cash capital finance
pay spend payment
save saving economise economize
client customer consumer buyer shopper prospect user
potential possible prospective likely
agent representative salesperson rep seller consultant advisor adviser executive salesman
company firm business corporation organisation organization enterprise establishment
employee staff worker team personnel
team group crew committee panel
group team participant member attendee
person people individual someone somebody
friend colleague associate acquaintance comrade buddy partner
boss manager head leader chief director
manage management oversee supervise administer run handle supervision oversight administration
product item good goods merchandise article
service offering solution amenity assistance
tool instrument device software resource utility
feature property characteristic attribute function functionality aspect capability
information detail data specifics particulars info knowledge
data information dataset corpus
document paper article report text file
part component element portion section piece
kind type sort category class form
area region domain field zone sector
goal aim objective target purpose
benefit advantage plus merit perk gain
drawback disadvantage shortcoming limitation weakness
reason cause because due motive
cause lead produce trigger result induce bring
automatic automated automatically
online web internet digital website
website web site page online
picture image photo photograph visual
speech voice spoken audio vocal
phone telephone call
maintain upkeep maintenance
use consumption usage
consult consultation consulting advice
demo demonstration presentation
free complimentary gratis
discount reduction deal off
offer deal discount promotion proposal
comprehensive complete full thorough extensive overall inclusive entire
entire whole total complete full all
total overall sum whole
current present existing now currently
previous former earlier prior past preexisting
future upcoming forthcoming next
begin start initial first
final last ultimate
often frequently regularly commonly usually
customise customize customizable tailor tailored personalise personalize personalized bespoke customisable
guide guidance supervision direction
idea concept notion thought
concept idea notion
word term
send forward email mail deliver
sign register enrol enroll subscribe signup
fit suitable match appropriate suit ideal best perfect
best ideal perfect optimal top
different diverse various distinct alternative other
alternative option choice substitute replacement
replace substitute swap exchange
material substance stuff
house home residence dwelling
car vehicle auto automobile
doctor physician medic
child kid
woman lady female
man gentleman male
job work employment position post occupation
country nation state
law legislation act statute bill
government state administration
expert specialist professional
experience undergo have
experienced skilled seasoned
expect anticipate await
allow enable permit let
ensure guarantee assure secure
protect safeguard secure defend protection
focus concentrate emphasise emphasize emphasis center centre
highlight emphasise emphasize stress underline point underscore
mean imply signify
believe trust
real actual true genuine
apparent clear obvious evident
explicit direct clear
efficient effective productive efficiency effectiveness
robust strong powerful sturdy
flexible adaptable versatile
generate produce create synthesise synthesize
share distribute
collaborate cooperate partner collaboration partnership
schedule arrange book set
follow pursue
record recording tape
transcribe transcription transcript
noise noisy
allocate assign
invest investment
hire recruit employ
fire dismiss
"""

# Left against right: each word of a side opposes all of the other.
_OPPOSED = """
increase raise boost grow rise expand growth enhance elevate gain : reduce decrease cut diminish lessen reduction
increase raise boost grow rise expand growth enhance elevate gain : shrink decline drop fall minimise minimize
raise : lower
improve enhance better improvement upgrade : worsen deteriorate degrade hinder harm impair damage decline
save saving : cost spend waste expense
buy purchase : sell
accept agree approve welcome : reject refuse decline deny disagree disapprove oppose
like love enjoy : dislike hate
support favour favor endorse promote : oppose resist hinder criticise criticize
help assist aid enable facilitate : hinder prevent obstruct impede hamper
allow permit enable let : forbid prohibit ban prevent block deny
include contain add incorporate : exclude omit remove lack eliminate
add insert : remove delete subtract drop
begin start open launch commence : end stop close finish cease
win success succeed gain achieve : lose fail failure loss
create build make construct : destroy demolish eliminate dismantle
remember recall : forget
trust believe : distrust doubt mistrust
encourage persuade urge : discourage dissuade
attract : repel
connect link join attach : disconnect separate detach
send : receive
give provide offer : withhold deny refuse
teach : learn
arrive come enter join : leave depart exit quit
push : pull
borrow : lend
rent : own
profit gain surplus : loss deficit
positive good beneficial favourable favorable : negative bad harmful unfavourable unfavorable poor detrimental
good great excellent fine well : bad poor terrible awful inadequate
best : worst
better superior : worse inferior
more most : less least fewer fewest
many numerous several multiple various : few single
much : little
all every always whole entire full fully : none never no partial partially some
always often frequently : never rarely seldom
high higher expensive costly : low lower cheap cheaper affordable inexpensive
expensive costly pricey : cheap inexpensive affordable reasonable
big large great huge major : small little tiny minor
long longer longterm : short shorter brief
fast quick rapid quickly rapidly : slow slowly sluggish
early earlier : late later
new modern : old outdated
easy simple simpler simply : difficult hard complex complicated
strong robust powerful : weak fragile
safe secure : dangerous unsafe risky insecure
happy satisfied pleased glad : unhappy dissatisfied sad disappointed displeased
interested keen eager : uninterested disinterested indifferent reluctant bored
public : private
open : closed
online digital virtual : offline physical inperson
internal inside indoor : external outside outdoor
domestic local national : foreign international global
first : last
before prior : after
above over : below under
upper top : bottom lower
left : right
front : back rear
male man men husband father son boy mr he him his : female woman women wife mother daughter girl ms mrs she her
friend ally partner colleague : enemy foe rival opponent competitor stranger
buyer customer client : seller vendor supplier
employer : employee
teacher : student
maximum maximise maximize most : minimum minimise minimize least
comprehensive complete thorough full extensive : partial incomplete basic limited superficial
necessary essential important crucial vital key : unnecessary optional unimportant irrelevant trivial
possible : impossible
certain sure confident : uncertain unsure doubtful
clear : unclear vague ambiguous
common usual frequent : rare unusual uncommon
general : specific special
automatic automated : manual
explicit : implicit
direct : indirect
static : dynamic
linear : nonlinear
supervised : unsupervised
structured : unstructured
conditional : unconditional
global : local
discrete : continuous
artificial synthetic : natural real
natural : artificial unnatural
visual : auditory
clean : dirty noisy
noisy loud : quiet clean silent
light : dark heavy
hot warm : cold cool
wet : dry
rich wealthy : poor
healthy well : sick ill unhealthy
alive living : dead
young : old elderly
free : paid chargeable
mandatory compulsory required : optional voluntary
permanent : temporary
fixed : flexible variable
flexible : rigid inflexible
active : passive inactive
efficient effective : inefficient ineffective
productive : unproductive
stable : unstable volatile
success successful : failure unsuccessful failed
benefit advantage : drawback disadvantage harm
strength : weakness
opportunity : threat
individual single : collective total joint
together jointly : separately alone apart
encoder : decoder
input : output
hardware : software
morning : evening afternoon
day : night
winter : summer
north : south
east : west
live : recorded prerecorded
current present : former past previous
past previous : future
""".strip()


@cache
def synonyms() -> dict[str, frozenset[int]]:
    """Every listed word with the numbers of its families; two words that share one stand for each other."""
    found: dict[str, set[int]] = {}
    for number, line in enumerate(_SAME.strip().splitlines()):
        for word in line.split():
            found.setdefault(word, set()).add(number)
    return {word: frozenset(numbers) for word, numbers in found.items()}


@cache
def opposites() -> dict[str, frozenset[str]]:
    """Every listed word with those that oppose it."""
    found: dict[str, set[str]] = {}
    for line in _OPPOSED.splitlines():
        left, _, right = (side.split() for side in line.partition(":"))
        for one in left:
            found.setdefault(one, set()).update(right)
        for other in right:
            found.setdefault(other, set()).update(left)
    return {word: frozenset(against) for word, against in found.items()}
